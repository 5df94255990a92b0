"""Compute the Bayesian model average: predictive probabilities over sampled weights, and how far samples disagree."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape._results import Estimate, Result
from landscape.losses import LossCall, LossWatcher
from landscape.objective import Objective


@dataclasses.dataclass(frozen=True, eq=False)
class ModelAverage(Result):
    """Predictions averaged over sampled weights, beside the true classes.

    Attributes:
        probabilities: p̄ = mean over samples of p(class | example, w), shape (n, classes), float64.
        targets: True classes, shape (n,).
        nll: Mean of −ln p̄(true class), in nats, with its standard error over examples.
        error: Fraction of wrong classes, with its standard error over examples.
        calibration_error: Expected calibration error of p̄: mean gap between confidence and accuracy over bins.
        sample_nll: Mean NLL of the single samples, in nats; that of the average is never larger.
        mutual_information: H(p̄) − mean H(p), in nats, shape (n,): what knowing the weights would tell (epistemic).
        entropy: H(p̄), in nats, shape (n,): all uncertainty.
        n_samples: Number of samples.
    """

    probabilities: torch.Tensor
    targets: torch.Tensor
    nll: Estimate
    error: Estimate
    calibration_error: float
    sample_nll: float
    mutual_information: torch.Tensor
    entropy: torch.Tensor
    n_samples: int

    def __repr__(self) -> str:
        return (
            f"ModelAverage(nll={self.nll.value:.4g}, error={self.error.value:.4g}, calibration_error="
            f"{self.calibration_error:.4g}, mutual_information={float(self.mutual_information.mean()):.4g}, "
            f"examples={len(self.targets)}, samples={self.n_samples})"
        )


@of_objective
def bayesian_average(
    objective: Objective, samples: Iterable[Mapping[str, torch.Tensor] | torch.Tensor], bins: int = 15
) -> ModelAverage:
    """Average the predictive probabilities of sampled weights over the examples of an objective.

    The scores are those that the module's own loss function gets (cross-entropy, negative log-likelihood, binary
    cross-entropy), whatever the module; ignored targets are left out, and label smoothing and class weights do not
    count. Samples are taken one at a time.

    Memory: two tensors (n, classes) in float64, and one sample.

    Args:
        objective: Loss, module and the examples to predict: held-out ones.
        samples: State dicts (of `swag(run).sample`, say), whose buffers are used as they are, or flat vectors of shape
            (P,).
        bins: Bins of confidence for the calibration error.

    Returns:
        Predictions, NLL, error, calibration error and mutual information.

    Raises:
        MeasurementError: The loss does not classify, a sample is of another model, or the samples are state dicts and
            the objective measures a part of the model.
        ValueError: There are no samples.

    Source: Wilson & Izmailov 2020, arXiv:2002.08791; Guo et al. 2017, arXiv:1706.04599 (calibration); Houlsby et al.
    2011, arXiv:1112.5745 (mutual information).
    """
    total, entropies, sample_nll, count = torch.zeros(()), torch.zeros(()), 0.0, 0
    targets = torch.zeros(0)
    for sample in samples:
        vector, buffers = _parts(objective, sample)
        probabilities, targets = _predict(objective, vector, buffers)
        total = total + probabilities
        entropies = entropies + _entropy(probabilities)
        sample_nll += float(_surprise(probabilities, targets).mean())
        count += 1
    if not count:
        raise ValueError("there are no samples to average over; give at least one")
    mean = total / count
    entropy = _entropy(mean)
    calibration = multiclass_calibration_error(mean, targets, num_classes=mean.shape[1], n_bins=bins, norm="l1")
    return ModelAverage(
        mean,
        targets,
        Estimate.from_samples(_surprise(mean, targets).numpy(), None),
        Estimate.from_samples((mean.argmax(1) != targets).double().numpy(), None),
        float(calibration),
        sample_nll / count,
        entropy - entropies / count,
        entropy,
        count,
    )


def _parts(
    objective: Objective, sample: Mapping[str, torch.Tensor] | torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor] | None]:
    if not isinstance(sample, Mapping):
        return torch.as_tensor(sample), None
    objective.require_whole("state dicts hold", "make the objective without parameters=")
    if missing := [name for name in objective.layout.names if name not in sample]:
        raise MeasurementError(
            f"a sample holds no tensor {missing[0]!r}, so it is of another model than {type(objective.module).__name__}"
        )
    own = {name for name, _ in objective.module.named_buffers()}
    vector = objective.flatten([sample[name] for name in objective.layout.names])
    return vector, {name: tensor for name, tensor in sample.items() if name in own}


def _predict(
    objective: Objective, vector: torch.Tensor, buffers: dict[str, torch.Tensor] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return probabilities (n, classes) and true classes (n,) on the CPU."""
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    with objective.session(), objective.without_graph():
        parameters = objective.present(vector)
        for index in objective.evaluated:
            with LossWatcher(_read) as watcher:
                objective.batch_loss(index, parameters, buffers)
            if len(watcher.calls) != 1:
                raise MeasurementError(
                    f"the loss of {type(objective.module).__name__} calls {len(watcher.calls)} known classification "
                    "losses on a batch, and predictions are read from exactly one; use cross_entropy, nll_loss or "
                    "binary_cross_entropy, or measure Objective(model, loss_fn, batches) with such a loss"
                )
            found.append(watcher.calls[0])
    return torch.cat([p for p, _ in found]).double().cpu(), torch.cat([y for _, y in found]).cpu()


def _read(call: LossCall) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the probabilities (targets, classes) and true classes (targets,) of a classification loss."""
    if not (call.classifies and call.readable):
        return None
    probabilities, kept = call.probabilities, call.kept
    if call.class_axis is None:
        return torch.stack([1 - probabilities, probabilities], -1).reshape(-1, 2), call.labels.reshape(-1).long()
    return probabilities.movedim(call.class_axis, -1)[kept].reshape(
        -1, probabilities.shape[call.class_axis]
    ), call.labels[kept].reshape(-1)


def _surprise(probabilities: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return -probabilities.gather(1, targets[:, None]).log()[:, 0]


def _entropy(probabilities: torch.Tensor) -> torch.Tensor:
    return torch.special.entr(probabilities).sum(1)


def samples_of(posterior: Any, count: int, first_seed: int = 0, **settings: Any) -> Iterator[dict[str, Any]]:
    """Draw samples one after another, for `bayesian_average`.

    Args:
        posterior: What `swag` or `multiswag` returned.
        count: How many.
        first_seed: Seed of the first; the others follow.
        **settings: Arguments of its `sample`: scale=, objective=.

    Yields:
        State dicts.
    """
    for seed in range(first_seed, first_seed + count):
        yield posterior.sample(seed, **settings)
