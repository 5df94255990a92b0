"""Gradient noise scale: the batch size at which noise and gradient are of equal size."""

from __future__ import annotations

import dataclasses

import torch
from scipy.special import ndtri

from landscape._derivatives import require_gradient
from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape._results import Estimate
from landscape.objective import Objective
from landscape.sharpness._finite import require_finite


@dataclasses.dataclass(frozen=True)
class NoiseScale(Estimate):
    """The gradient noise scale with the two numbers that it is the ratio of.

    Attributes:
        value: B = tr Σ / |G|², in examples; NaN where the estimate of |G|² is not positive.
        stderr: Its standard error over groups of examples, by the jackknife. It is the one over examples, as nothing is
            drawn: do not add the two.
        stderr_sample: The same, widened by Student's t.
        n: Number of groups.
        seed: None.
        dof: Number of groups less one.
        spread: None.
        noise: Unbiased estimate of tr Σ, Σ the covariance of one example's gradient.
        signal: Unbiased estimate of |G|², G the gradient over the whole distribution. It may be negative.
    """

    noise: float
    signal: float


@of_objective
def gradient_noise_scale(objective: Objective, group: int | None = None) -> NoiseScale:
    """Estimate B = tr Σ / |G|², the batch size at which a batch's gradient holds as much noise as signal.

    Batches much smaller than B average little noise away per example; much larger ones waste examples. With gradients
    G_i of n groups of B_i examples, N examples in all, and their weighted mean Ḡ,

        tr Σ ≈ S = Σ B_i |G_i − Ḡ|² / (n − 1),    |G|² ≈ |Ḡ|² − S/N.

    Both are unbiased; their ratio is not, but its bias falls as 1/n. The standard error is the jackknife's over groups.

    Memory: n + 1 vectors of the parameters' length for n groups.

    Args:
        objective: The loss over the measured examples, a mean over examples, targets or weights.
        group: Examples a group; by default each batch of the objective is one. Batches are cut, never joined.

    Returns:
        The noise scale in examples, with its standard error, tr Σ and |G|². NaN where the estimate of |G|² is not
        positive: then B is too large for the number of measured examples.

    Raises:
        MeasurementError: There are fewer than two groups, the loss is no mean over examples, or a gradient is not
            finite.
        ValueError: `group` is not positive.

    Source: McCandlish et al. 2018, arXiv:1812.06162, appendix A.1. They use two batch sizes; with equal groups their
    estimators for the sizes B and N are these.
    """
    require_gradient(objective)
    if objective.weighting == "batches":
        raise MeasurementError(
            "the loss is measured as a mean over batches, not over examples, so one example has no gradient of its own "
            "and no noise scale; say what a batch's loss divides by with batch_weight="
        )
    gradients, shares = _by_batch(objective) if group is None else _by_group(objective, group)
    if len(shares) < 2:
        raise MeasurementError(
            "the noise between groups of examples needs at least two groups; give smaller batches, or a smaller group="
        )
    require_finite(gradients.sum(), "gradient")
    return from_gradients(gradients, torch.tensor(shares, dtype=torch.float64) * objective.n_examples)


def from_gradients(gradients: torch.Tensor, sizes: torch.Tensor) -> NoiseScale:
    """Estimate the noise scale from the gradients of n groups, shape (n, P), and their sizes, shape (n,)."""
    gram, count = (gradients @ gradients.T).double().cpu(), len(sizes)
    noise, signal = _moments(gram, sizes)
    value, stderr = noise / signal if signal > 0 else float("nan"), float("nan")
    if count > 2:
        left_out = [_left_out(gram, sizes, index) for index in range(count)]
        spread = torch.tensor([own / other if other > 0 else float("nan") for own, other in left_out])
        stderr = float(((count - 1) ** 2 / count) ** 0.5 * spread.std())
    found = NoiseScale(value, stderr, count, None, noise, signal, dof=float(count - 1))
    return dataclasses.replace(found, stderr_sample=(found.interval()[1] - value) / float(ndtri(0.975)))


def _by_batch(objective: Objective) -> tuple[torch.Tensor, list[float]]:
    """Return the gradients of the batches that count, shape (n, P), and the weight of each."""
    counted = [index for index, weight in enumerate(objective.batch_weights) if weight > 0]
    gradients = torch.zeros(len(counted), objective.n_parameters, dtype=objective.dtype, device=objective.device)
    with objective.session():
        parts = objective.layout.unflatten(objective.vector())
        parameters = [part.detach().requires_grad_() for part in parts]
        with objective.processes.summed(gradients):
            for index in objective.counted:
                loss = objective.batch_loss(index, parameters)
                found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
                gradients[counted.index(index)] = objective.flatten(found)
    return gradients, [objective.batch_weights[index] for index in counted]


def _by_group(objective: Objective, group: int) -> tuple[torch.Tensor, list[float]]:
    """Return the gradients of groups of examples, and their shares; each group is evaluated by one process."""
    parts = objective.split(group)
    gradients = torch.zeros(len(parts), objective.n_parameters, dtype=objective.dtype, device=objective.device)
    with objective.processes.summed(gradients):
        for index in objective.processes.share([part.n_examples for part in parts]):
            gradients[index] = parts[index].gradient()
    total = sum(part.n_examples for part in parts)
    return gradients, [part.n_examples / total for part in parts]


def _moments(gram: torch.Tensor, sizes: torch.Tensor) -> tuple[float, float]:
    """Return the unbiased tr Σ and |G|² from the inner products of the groups' gradients, shape (n, n)."""
    shares = sizes / sizes.sum()
    mean_square = float(shares @ gram @ shares)
    noise = (float(sizes @ gram.diagonal()) - float(sizes.sum()) * mean_square) / (len(sizes) - 1)
    return noise, mean_square - noise / float(sizes.sum())


def _left_out(gram: torch.Tensor, sizes: torch.Tensor, index: int) -> tuple[float, float]:
    kept = torch.arange(len(sizes)) != index
    return _moments(gram[kept][:, kept], sizes[kept])
