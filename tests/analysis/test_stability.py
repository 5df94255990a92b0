"""Stability thresholds of gradient descent, by running it on a quadratic."""

from __future__ import annotations

from typing import Any

import pytest

from landscape.analysis._stability import stability_threshold

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
