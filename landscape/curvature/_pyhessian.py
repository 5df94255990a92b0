"""PyHessian's own eigenvalues and trace, for those who want its numbers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape._results import Estimate
from landscape.curvature._eigenpairs import check_count
from landscape.curvature._hessian import hessian
from landscape.curvature._pairs import Eigenpairs, over_examples
from landscape.objective import Objective


@of_objective
def pyhessian_spectrum(
    objective: Objective, k: int = 1, tol: float = 1e-3, seed: int = 0, max_iterations: int = 100
) -> tuple[Eigenpairs, Estimate]:
    """Run PyHessian's power iteration and Hutchinson trace on an objective.

    What is PyHessian's stays so: power iteration with deflation, which stops when two iterates agree to `tol`, finds
    the eigenvalues of largest *magnitude* and is unreliable where the spectrum has both signs; batches weigh by
    examples; eval mode. The residuals are ours: ‖Hv − λv‖ with one more product a pair, so `converged` tells what
    became of it.

    Args:
        objective: The loss over the measured examples.
        k: Number of eigenvalues.
        tol: PyHessian's tolerance between iterates.
        seed: Seed of torch's global generator, which PyHessian draws from (put back afterwards).
        max_iterations: Most iterations for each eigenvalue, and most probes of the trace.

    Returns:
        The eigenpairs, sorted descending, and the trace.

    Raises:
        MeasurementError: The objective measures a part of the model, or is at other weights. Or the model is not in the
            measuring type or on a device that PyHessian knows, has parameters without gradient, or k exceeds P.

    Source: PyHessian 0.1; Yao et al. 2020, arXiv:1912.07145.
    """
    objective.require_whole("PyHessian measures", "use engine='lanczos', or the functions of landscape.curvature")
    if objective.device.type not in ("cpu", "cuda"):
        raise MeasurementError(
            f"PyHessian knows the CPU and CUDA alone, and the parameters are on {objective.device}; use "
            "engine='lanczos', or move the module to the CPU"
        )
    operator = hessian(objective)
    check_count(operator, k)
    if any(p.dtype != objective.dtype for p in objective.module.parameters() if p.requires_grad):
        raise MeasurementError(
            f"PyHessian measures the module as it is, but its parameters are not {objective.dtype}; "
            "use engine='lanczos'"
        )
    if not objective.at_module:
        raise MeasurementError(
            "PyHessian measures the module's present weights, not those of Objective.at; load them into the module "
            "first"
        )
    with objective.session(), warnings.catch_warnings():
        # backward(create_graph=True) warns of a reference cycle; the gradients are dropped when the session ends.
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        values, vectors, traces = _run(objective, k, tol, max_iterations)
    order = np.argsort(-values, kind="stable")
    values, columns = values[order], torch.stack([vectors[i] for i in order], dim=1)
    images, parts = operator.with_forms(columns)
    residuals = torch.linalg.vector_norm(
        images - columns * torch.as_tensor(values, dtype=columns.dtype, device=columns.device),
        dim=0,
    )
    each = residuals.cpu().numpy() <= tol * np.abs(values)
    pairs = Eigenpairs(
        values,
        columns,
        residuals.double().cpu().numpy(),
        each,
        np.bool_(each.all()),
        operator.n_matvecs,
        seed,
        stderr_sample=over_examples(operator.clusters, parts, len(values)),
        parts=parts,
    )
    return pairs, Estimate.from_samples(traces, seed)


def _run(
    objective: Objective, k: int, tol: float, max_iterations: int
) -> tuple[np.ndarray, list[torch.Tensor], list[float]]:
    # Imported here because only this engine needs it.
    from pyhessian import hessian as pyhessian

    for parameter in objective.module.parameters():
        parameter.grad = None
    # PyHessian weighs a batch by inputs.size(0) and feeds (inputs, targets); the inputs carry the batch's index.
    batches = [
        (torch.full((count,), float(index), device=objective.device), torch.empty(0, device=objective.device))
        for index, count in enumerate(objective.batch_sizes)
        if count
    ]
    single = {"data": batches[0]} if len(batches) == 1 else {"dataloader": batches}
    try:
        peer = pyhessian(_BatchLoss(objective), _first, cuda=objective.device.type == "cuda", **single)
        values, vectors = peer.eigenvalues(maxIter=max_iterations, tol=tol, top_n=k)
        traces = peer.trace(maxIter=max_iterations, tol=tol)
    except (AssertionError, AttributeError, RuntimeError, TypeError) as error:
        raise MeasurementError(
            f"PyHessian cannot measure {type(objective.module).__name__}: {error}. It needs every trainable parameter "
            "to take part in the loss; use engine='lanczos'"
        ) from error
    return np.array(values, dtype=np.float64), [objective.flatten(vector) for vector in vectors], traces


class _BatchLoss(nn.Module):
    """The loss of the batch whose index the inputs carry, at the module's own parameters."""

    def __init__(self, objective: Objective):
        super().__init__()
        self.module = objective.module
        self._objective = objective

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        return self._objective.batch_loss(int(inputs[0]), parameters)


def _first(loss: torch.Tensor, _: Any) -> torch.Tensor:
    return loss
