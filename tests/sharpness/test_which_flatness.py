"""The table of docs/which-flatness.md, measured: ratios under rescalings that change no output, and costs by counting.

Where a cell of the page differs, the message of the failing test holds the whole table as it should stand there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from landscape import Objective, sharpness
from landscape._step import ModelStep
from landscape.curvature import hessian, top_eigenpairs, trace
from landscape.curvature._fisher import FisherOperator
from landscape.curvature._hessian import HessianOperator

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "which-flatness.md"
COLUMNS = ("measure", "layers", "neurons", "normalised", "loss ×2", "passes", "gradients", "products")

# Call as the page writes it -> (function, settings); `layer` is filled in.
MEASURES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "`average_case`": (sharpness.average_case, {}),
    '`average_case(norm="linf")`': (sharpness.average_case, {"norm": "linf"}),
    "`average_case(adaptive=False)`": (sharpness.average_case, {"adaptive": False}),
    "`worst_case`": (sharpness.worst_case, {}),
    '`worst_case(rho=.01, norm="linf")`': (sharpness.worst_case, {"rho": 0.01, "norm": "linf"}),
    "`worst_case(adaptive=False)`": (sharpness.worst_case, {"adaptive": False}),
    "`trace_chc`": (sharpness.trace_chc, {}),
    "`lambda_max_chc`": (sharpness.lambda_max_chc, {}),
    "`trace(hessian(·))`": (lambda objective: trace(hessian(objective)), {}),
    "`top_eigenpairs(hessian(·), 1)`": (lambda objective: _Value(top_eigenpairs(hessian(objective), 1).values[0]), {}),
    "`sam`": (sharpness.sam, {}),
    "`m_sharpness(m=20)`": (sharpness.m_sharpness, {"m": 20}),
    "`asam`": (sharpness.asam, {}),
    '`asam(variant="elementwise")`': (sharpness.asam, {"variant": "elementwise"}),
    "`keskar`": (sharpness.keskar, {}),
    "`keskar(subspace=20)`": (sharpness.keskar, {"subspace": 20}),
    "`pac_bayes`": (sharpness.pac_bayes, {}),
    "`pac_bayes(magnitude_aware=True)`": (sharpness.pac_bayes, {"magnitude_aware": True}),
    "`random_radius`": (sharpness.random_radius, {}),
    "`random_radius(adaptive=False)`": (sharpness.random_radius, {"adaptive": False}),
    "`relative_flatness`": (sharpness.relative_flatness, {"layer": ...}),
    '`relative_flatness(kind="max")`': (sharpness.relative_flatness, {"layer": ..., "kind": "max"}),
    "`fisher_rao`": (sharpness.fisher_rao, {}),
    "`gradient_norm`": (sharpness.gradient_norm, {}),
    "`gradient_norm(adaptive=True)`": (sharpness.gradient_norm, {"adaptive": True}),
}


class _Value:
    def __init__(self, value: float):
        self.value = float(value)


def measure(name: str, objective: Objective, layer: str) -> float:
    function, settings = MEASURES[name]
    return function(objective, **{key: layer if value is ... else value for key, value in settings.items()}).value


@pytest.fixture(scope="module")
def changes(cases) -> dict[str, tuple[Objective, Objective, str]]:
    """Before and after a change that leaves every output as it is, and the layer that a measure of one layer takes."""
    x, y = cases.data(60)
    cross = nn.CrossEntropyLoss()
    net = cases.trained(cases.mlp(nn.ReLU), cross, [(x, y)], steps=80)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Linear(4, 8), nn.LayerNorm(8, eps=0.0, elementwise_affine=False), nn.Tanh(), nn.Linear(8, 3)]
    normed = cases.trained(nn.Sequential(*layers), cross, [(x, y)], steps=80)
    whole, each, scaled = copy.deepcopy(net), copy.deepcopy(net), copy.deepcopy(normed)
    with torch.no_grad():
        factors = torch.logspace(-0.7, 0.7, 8, dtype=torch.float64)
        for model, factor in ((whole, torch.full((8,), 5.0).double()), (each, factors)):
            model[0].weight *= factor[:, None]
            model[0].bias *= factor
            model[2].weight /= factor
        scaled[0].weight *= 3
        scaled[0].bias *= 3

    def doubled(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return 2 * cross(scores, target)

    def of(model: nn.Module, loss: Callable[..., Any] = cross) -> Objective:
        return Objective(model, loss, [(x, y)])

    base = of(net)
    pairs = {
        "layers": (base, of(whole), "2"),
        "neurons": (base, of(each), "2"),
        "normalised": (of(normed), of(scaled), "0"),
        "loss ×2": (base, of(net, doubled), "2"),
    }
    for name, (before, after, _) in pairs.items():
        factor = 2 if name == "loss ×2" else 1
        assert float(after.loss()) == pytest.approx(factor * float(before.loss()), rel=1e-12)
    return pairs


@pytest.fixture(scope="module")
def costs(cases) -> Callable[[str], tuple[float, float, int]]:
    """Counts passes without and with gradients over all examples, and products, on 1,315 parameters."""
    x, y = cases.data(60)
    model = cases.trained(cases.mlp(nn.ReLU, width=32), nn.CrossEntropyLoss(), [(x, y)], steps=80)
    objective = Objective(model, nn.CrossEntropyLoss(), [(x[:30], y[:30]), (x[30:], y[30:])])
    objective.derivatives.gradient(objective)  # once a run, so no cost of a measure
    objective.derivatives.product(objective)

    def count(name: str) -> tuple[float, float, int]:
        counts, operators = {True: 0.0, False: 0.0}, []
        with pytest.MonkeyPatch.context() as patch:
            original = ModelStep.__call__

            def counted(self: ModelStep, batch: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
                counts[torch.is_grad_enabled()] += len(batch[0]) / 60
                return original(self, batch, *args, **kwargs)

            patch.setattr(ModelStep, "__call__", counted)
            for kind in (HessianOperator, FisherOperator):
                init = kind.__init__

                def noted(self: Any, *args: Any, init: Any = init, **kwargs: Any) -> None:
                    init(self, *args, **kwargs)
                    operators.append(self)

                patch.setattr(kind, "__init__", noted)
            measure(name, objective, "2")
        return counts[False], counts[True], sum(operator.n_matvecs for operator in operators)

    return count


def ratio_cell(ratio: float) -> str:
    return "1" if abs(ratio - 1) < 1e-4 else f"{ratio:.3g}"


@pytest.fixture(scope="module")
def measured(changes, costs) -> dict[str, tuple[str, ...]]:
    table = {}
    for name in MEASURES:
        cells = [
            ratio_cell(measure(name, after, at) / measure(name, before, at)) for before, after, at in changes.values()
        ]
        table[name] = (*cells, *(f"{count:.3g}" for count in costs(name)))
    return table


def on_the_page() -> dict[str, tuple[str, ...]]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = lines.index("| " + " | ".join(COLUMNS) + " |")
    table = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        table[name] = tuple(cells)
    return table


def agree(stated: str, found: str, column: str) -> bool:
    """Invariance is exact; what changes, and the steps of searches, may differ a little between machines."""
    if column in ("layers", "neurons", "normalised", "loss ×2"):
        return (stated == "1") == (found == "1") and float(stated) == pytest.approx(float(found), rel=0.1)
    return float(stated) == pytest.approx(float(found), rel=0.25)


def test_the_page_tells_what_is_measured(measured):
    stated = on_the_page()
    rows = [f"| {name} | " + " | ".join(cells) + " |" for name, cells in measured.items()]
    as_it_should_be = "\n".join(["", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS), *rows])
    assert list(stated) == list(measured), as_it_should_be
    for name, cells in measured.items():
        for column, said, found in zip(COLUMNS[1:], stated[name], cells, strict=True):
            assert agree(said, found, column), f"{name}, {column}: {said} for {found}{as_it_should_be}"


# Invariant but for its ε, which may or may not show.
NEARLY = "`pac_bayes(magnitude_aware=True)`"
INVARIANT = {
    "`average_case`",
    '`average_case(norm="linf")`',
    "`worst_case`",
    '`worst_case(rho=.01, norm="linf")`',
    "`trace_chc`",
    "`lambda_max_chc`",
    '`asam(variant="elementwise")`',
    "`random_radius`",
    "`fisher_rao`",
    "`gradient_norm(adaptive=True)`",
}


def test_theory_says_which_are_invariant(measured):
    """What the page says of rescalings follows from the definitions, so it is stated here apart from it."""
    for name, cells in measured.items():
        same = dict(zip(COLUMNS[1:4], cells, strict=False))
        if name in INVARIANT:
            assert set(same.values()) == {"1"}, name
        elif name.startswith("`relative_flatness"):
            assert (same["layers"], same["normalised"]) == ("1", "1"), name
            assert same["neurons"] != "1", name
        elif name != NEARLY:
            assert "1" not in {same["layers"], same["neurons"]}, name


def test_what_is_linear_in_the_loss(measured):
    linear = {name for name, cells in measured.items() if cells[3] == "2"}
    assert linear == {
        name for name in measured if "keskar" not in name and "pac_bayes" not in name and "radius" not in name
    }
    assert {measured[name][3] for name in measured if "pac_bayes" in name} == {"1"}


def test_the_page_names_every_measure():
    text = PAGE.read_text(encoding="utf-8")
    others = {name for name in sharpness.__all__ if isinstance(getattr(sharpness, name), type)}  # results of measures
    for name in set(sharpness.__all__) - others - {"stretched", "preconditioner"}:
        assert f"`{name}" in text, name
