"""Stability thresholds of gradient descent, by running it on a quadratic."""

from __future__ import annotations

from typing import Any

import pytest

from landscape.analysis._stability import preconditioned_threshold, stability_threshold

_RATE = 0.1


@pytest.mark.parametrize(
    ("optimizer", "label"),
    [
        ({"name": "SGD", "momentum": 0.0}, "2/η"),
        ({"name": "torch.optim.SGD", "momentum": 0.9}, "(2+2β)/η, β = 0.9"),
        ({"name": "sgd", "momentum": 0.9, "nesterov": True}, "(2+2β)/((1+2β)η), Nesterov β = 0.9"),
        ({"name": "SGD", "momentum": 0.5, "dampening": 0.5}, "(2+2β)/((1−d)η), β = 0.5, d = 0.5"),
    ],
)
def test_just_below_converges_just_above_diverges(optimizer: dict[str, Any], label: str) -> None:
    found = stability_threshold(optimizer)
    assert found is not None
    factor, text = found
    assert text == label
    assert _distance(optimizer, 0.99 * factor / _RATE) < 1e-3
    assert _distance(optimizer, 1.01 * factor / _RATE) > 1e3


def _distance(optimizer: dict[str, Any], curvature: float) -> float:
    """|w| after 3000 steps from 1 on ½ curvature w², by torch.optim.SGD's update rule."""
    beta, dampening = optimizer["momentum"], optimizer.get("dampening", 0.0)
    w, velocity = 1.0, None
    for _ in range(3000):
        gradient = curvature * w
        velocity = gradient if velocity is None else beta * velocity + (1 - dampening) * gradient
        w -= _RATE * (gradient + beta * velocity if optimizer.get("nesterov") else velocity)
    return abs(w)


def test_unknown_optimisers_have_the_plain_threshold_and_adaptive_ones_none() -> None:
    assert stability_threshold(None) == (2.0, "2/η")
    assert stability_threshold({"name": "Adam"}) is None


@pytest.mark.parametrize(
    ("optimizer", "label"),
    [
        ({"name": "Adam", "betas": [0.9, 0.999]}, "(2+2β₁)/((1−β₁)η), β₁ = 0.9"),
        ({"name": "Adam", "betas": [0.5, 0.999], "weight_decay": 0.1}, "(2+2β₁)/((1−β₁)η), β₁ = 0.5"),
        ({"name": "AdamW", "betas": [0.9, 0.999], "weight_decay": 2.0}, "(2+2β₁)/((1−β₁)η), β₁ = 0.9"),
        ({"name": "RMSprop", "momentum": 0.0}, "2/η"),
        ({"name": "RMSprop", "momentum": 0.9}, "(2+2μ)/η, μ = 0.9"),
        ({"name": "Adagrad"}, "2/η"),
    ],
)
def test_preconditioned_steps_converge_just_below_their_line_and_diverge_just_above(
    optimizer: dict[str, Any], label: str
) -> None:
    line = preconditioned_threshold(optimizer)
    assert line is not None
    assert line.label == label
    edge = float(line.at(_RATE))
    assert _preconditioned_distance(optimizer, 0.99 * edge) < 1e-3
    assert _preconditioned_distance(optimizer, 1.01 * edge) > 1e3


def _preconditioned_distance(optimizer: dict[str, Any], curvature: float) -> float:
    """|w| after 3000 steps on ½ curvature w², with P frozen at 1, by the update rules of torch."""
    name, momentum = optimizer["name"], optimizer.get("momentum", 0.0)
    beta = optimizer.get("betas", [0.0])[0]
    decay = optimizer.get("weight_decay", 0.0) if name == "AdamW" else 0.0
    w, velocity = 1.0, 0.0
    for _ in range(3000):
        gradient = curvature * w
        velocity = beta * velocity + (1 - beta) * gradient if beta else momentum * velocity + gradient
        w = w * (1 - _RATE * decay) - _RATE * velocity
        if abs(w) > 1e100:
            break
    return abs(w)


def test_the_line_of_adam_is_38_over_the_rate_and_others_have_none() -> None:
    line = preconditioned_threshold({"name": "torch.optim.Adam", "betas": [0.9, 0.999]})
    assert line is not None
    assert line.at([0.1, 0.0, float("nan")]).tolist() == pytest.approx([380.0, float("nan"), float("nan")], nan_ok=True)
    assert preconditioned_threshold({"name": "SGD"}) is None
    assert preconditioned_threshold(None) is None
