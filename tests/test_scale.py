"""The vectors in docs/scale.md are those that torch's operations hold at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.curvature import hessian, spectral_density, spectrum, top_eigenpairs, trace
from landscape.curvature._ritz_space import _CHUNK
from landscape.sharpness import average_case, gradient_norm, sam, worst_case

WIDTH = 600
SIZE = WIDTH * WIDTH + 2 * WIDTH


def network() -> nn.Module:
    """A network with nearly all of its weights in one tensor."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.Tanh(), nn.Linear(WIDTH, 2, bias=False))


def objective(model: nn.Module | None = None) -> Objective:
    """Its loss on two examples."""
    batches = [(torch.randn(2, WIDTH), torch.tensor([0, 1]))]
    return Objective(model or network(), nn.CrossEntropyLoss(), batches)


def documented() -> dict[str, float]:
    """Vectors by name, as the first table of the page says."""
    page = (Path(__file__).parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.*?) \| ([\d.]+) \| [^|]*\|$", page, flags=re.MULTILINE)
    return {name.replace("`", ""): float(vectors) for name, vectors in rows}


def held(count: int) -> int:
    """A budget of so many vectors."""
    return count * 4 * SIZE


def measures() -> dict[str, Callable[[], Any]]:
    """What each row of the table measures; what the operator holds is made before."""
    loss = objective()
    curvature = hessian(loss)
    model, unchecked = network(), objective()
    direction = torch.randn(SIZE)
    return {
        "Objective": lambda: objective(model),
        "objective.loss": loss.loss,
        "objective.gradient": loss.gradient,
        "check of the gradient (float64)": lambda: unchecked.derivatives.gradient(unchecked),
        "check of products (float64)": lambda: unchecked.derivatives.product(unchecked),
        "hessian": lambda: hessian(loss),
        "H @ v": lambda: curvature @ direction,
        "top_eigenpairs, k=1": lambda: top_eigenpairs(curvature, 1),
        'top_eigenpairs, k=1, memory="low"': lambda: top_eigenpairs(curvature, 1, memory="low"),
        "top_eigenpairs, k=1, two passes": lambda: top_eigenpairs(curvature, 1, memory_budget=held(5)),
        "top_eigenpairs, k=10, two passes": lambda: top_eigenpairs(curvature, 10, memory_budget=held(14)),
        "top_eigenpairs, values alone": lambda: top_eigenpairs(curvature, 1, memory_budget=held(4), vectors=False),
        "spectrum, k=10, k_bottom=2": lambda: spectrum(curvature),
        "spectrum, values alone": lambda: spectrum(curvature, memory_budget=held(4)),
        "spectral_density, 30 steps": lambda: spectral_density(curvature),
        "spectral_density, 30 steps, no basis": lambda: spectral_density(curvature, memory_budget=held(4)),
        'trace, "hutch++", 60 products': lambda: trace(curvature, "hutch++", tol=1e-3, max_matvecs=60),
        "trace, four vectors": lambda: trace(curvature, memory_budget=held(4), max_matvecs=20),
        "gradient_norm": lambda: gradient_norm(loss),
        "average_case": lambda: average_case(loss, draws=2),
        "sam": lambda: sam(loss),
        "worst_case": lambda: worst_case(loss, steps=3),
    }


@pytest.mark.slow
def test_the_table_is_what_is_held_at_once(live):
    table, found = documented(), {}
    for name, measure in measures().items():
        with live.Live() as memory:
            measure()
        found[name] = memory.peak / (4 * SIZE)
    assert table.keys() == found.keys()
    # The activations of this network are a few hundredths of a vector.
    wrong = {name: (round(found[name], 2), table[name]) for name in table if abs(found[name] - table[name]) > 0.4}
    assert not wrong


@pytest.mark.parametrize("count", [4, 6, 9, 30])
def test_a_search_stays_within_its_budget(count, live):
    loss = objective()
    curvature = hessian(loss)
    with live.Live() as memory:
        top_eigenpairs(curvature, 2, memory_budget=held(count), vectors=count > 4)
    # On top come the product's tensors, and where a basis is restarted, the columns that are rotated together.
    allowed = held(count) + 1.1 * 4 * SIZE
    assert memory.peak <= allowed + 4 * _CHUNK * count
    with live.Live() as memory:
        trace(curvature, memory_budget=held(count), max_matvecs=40)
    assert memory.peak <= allowed
