"""Read the diagonal preconditioner and the coupled weight decay of an optimizer out of its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape.objective import Objective
from landscape.sharpness._descent import Decay

Optimizers: TypeAlias = Optimizer | Sequence[Optimizer]

_State: TypeAlias = Mapping[str, Any]


def _adam(state: _State, group: _State) -> torch.Tensor:
    """(1 − β₁ᵗ)(√v̂ + ε): the step is −η m/P with the first moment m as it is kept."""
    first, second = (float(beta) for beta in group["betas"])
    step = float(state["step"])
    squares = state["max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"]
    root = squares.sqrt() / (1 - second**step) ** 0.5
    return (1 - first**step) * (root + group["eps"])


def _rmsprop(state: _State, group: _State) -> torch.Tensor:
    squares = state["square_avg"]
    if group.get("centered"):
        squares = torch.addcmul(squares, state["grad_avg"], state["grad_avg"], value=-1)
    return squares.sqrt() + group["eps"]


def _adagrad(state: _State, group: _State) -> torch.Tensor:
    """√Σg² + ε, times what the learning rate has decayed by."""
    return (state["sum"].sqrt() + group["eps"]) * (1 + (float(state["step"]) - 1) * group["lr_decay"])


def _plain(state: _State, group: _State) -> torch.Tensor:
    return torch.ones(())


_KINDS: dict[type[Optimizer], Callable[[_State, _State], torch.Tensor]] = {
    Adam: _adam,
    AdamW: _adam,
    RMSprop: _rmsprop,
    Adagrad: _adagrad,
    SGD: _plain,
}


@of_objective
def preconditioner(objective: Objective, optimizer: Optimizers) -> torch.Tensor:
    """Return the diagonal P by which an optimizer divides its gradients at this moment.

    P is (1 − β₁ᵗ)(√v̂ + ε) for Adam and AdamW, with v̂ corrected for its bias and the largest so far with amsgrad. It
    is √v + ε for RMSprop, v less the squared mean where centered, and √Σg² + ε for Adagrad, times the decay of its
    learning rate. It is 1 for SGD. Parameters that the optimizer has not moved yet have P = ∞: they count as fixed.

    Memory: one vector of the parameters' length.

    Args:
        objective: Its parameters give the order of the entries.
        optimizer: One optimizer, or all that train the parameters.

    Returns:
        P, shape (P,).

    Raises:
        MeasurementError: The optimizer is of another kind, or its state is not of the parameters' shapes.

    Source: Cohen et al. 2022, arXiv:2207.14484, section 2 (Adam's P, with the bias corrections).
    """
    found: dict[int, tuple[Callable[[_State, _State], torch.Tensor], _State, _State]] = {}
    for one in listed(optimizer):
        kind = _KINDS[_known(one)]
        for group in one.param_groups:
            for parameter in group["params"]:
                # Without a gradient so far there is no state; plain SGD has none at all.
                if kind is _plain or one.state.get(parameter):
                    found[id(parameter)] = kind, one.state.get(parameter, {}), group
    parameters = dict(objective.module.named_parameters())
    diagonal = torch.full((objective.n_parameters,), torch.inf, dtype=objective.dtype, device=objective.device)
    for name, part in zip(objective.layout.names, objective.layout.unflatten(diagonal), strict=True):
        if id(parameters[name]) not in found:
            continue
        kind, state, group = found[id(parameters[name])]
        values = kind(state, group)
        if values.ndim and values.shape != part.shape:
            raise MeasurementError(
                f"the optimizer holds a state of shape {tuple(values.shape)} for {name}, which has the shape "
                f"{tuple(part.shape)}: a sharded or flattened state cannot be read. Measure lambda_max instead"
            )
        part.copy_(values)
    return diagonal


def coupled_decay(objective: Objective, optimizer: Optimizers) -> Decay:
    """Return the weight decay that an optimizer adds to the gradient, one number or, where groups differ, by name.

    Decoupled decay (AdamW, or `decoupled_weight_decay=True`) is 0 here: no loss has its gradient. That of optimizers
    whose preconditioner is not known is 0 too, since what they do with it is not known either.

    Args:
        objective: Its parameters give the names.
        optimizer: One optimizer, or all that train the parameters.

    Returns:
        λ of ½ Σ λ_i w_i².
    """
    by_parameter: dict[int, float] = {}
    for one in listed(optimizer):
        coupled = kind_of(one) not in (None, AdamW)
        for group in one.param_groups:
            counts = coupled and not group.get("decoupled_weight_decay", False)
            decay = float(group.get("weight_decay") or 0.0) if counts else 0.0
            by_parameter |= {id(parameter): decay for parameter in group["params"]}
    parameters = dict(objective.module.named_parameters())
    values = {name: by_parameter.get(id(parameters[name]), 0.0) for name in objective.layout.names}
    different = set(values.values())
    return values if len(different) > 1 else different.pop()


def listed(optimizer: Optimizers) -> list[Any]:
    """Return optimizers as a list, without the wrappers that Lightning puts around them."""
    several = list(optimizer) if isinstance(optimizer, Sequence) else [optimizer]
    return [getattr(one, "optimizer", one) for one in several]


def kind_of(optimizer: Any) -> type[Optimizer] | None:
    """Return the class of torch's whose step an optimizer takes, if its preconditioner is known here; else None."""
    for kind in type(optimizer).__mro__:
        if kind in _KINDS:
            return kind
        if "step" in vars(kind):
            return None  # a step of its own divides by we know not what
    return None


def _known(optimizer: Any) -> type[Optimizer]:
    kind = kind_of(optimizer)
    if kind is None:
        names = ", ".join(known.__name__ for known in _KINDS)
        raise MeasurementError(
            f"the preconditioner of {type(optimizer).__name__} is not known; it is read for torch's {names}. Give the "
            "diagonal itself as a vector, or measure lambda_max"
        )
    return kind
