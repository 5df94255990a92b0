"""The plan counts what the callbacks then do."""

from __future__ import annotations

import pytest
import torch
from landscape_test_trainings import Plain, Weighs, loader
from torch import nn

import landscape
from landscape import Objective
from landscape.callbacks import HessianSpectrum, Sharpness, _plan, default_callbacks
from landscape.callbacks._effort import Prices


@pytest.fixture
def objective() -> Objective:
    return Objective.from_lightning(Plain(), list(loader(256)))


@pytest.fixture(autouse=True)
def _prices(monkeypatch):
    monkeypatch.setattr(_plan, "prices_of", lambda *given, **more: Prices(2.0, 1.0, 0.5, 16))


def test_seconds_are_counts_times_prices(objective) -> None:
    found = landscape.plan(objective, [Sharpness(measures=["gradient_norm"], every_n_epochs=5)], epochs=20)
    (row,) = found.rows
    # 16 batches: one and a half gradients, and the loss of every row
    assert (row.events, row.gradients, row.losses, row.products) == (4, 1.5, 1, 0)
    assert row.seconds == 16 * (1.5 + 0.5)
    assert row.total == found.total == 4 * row.seconds
    assert found.training == 20 * 16 * 1.0
    assert row.bytes == 1 * 67 * 4


def test_with_an_overhead_it_says_what_would_be_lowered(objective) -> None:
    as_asked = landscape.plan(objective, default_callbacks(overhead=None), epochs=200)
    kept = landscape.plan(objective, default_callbacks(overhead="50%"), epochs=200)
    assert all(row.reduced == "" for row in as_asked.rows)
    assert as_asked.total > kept.training > 0.5 * kept.training >= kept.total
    assert {row.name for row in kept.rows if "examples=" in row.reduced or "probes=" in row.reduced}


def test_it_prints_as_a_table(objective) -> None:
    lines = str(landscape.plan(objective, [HessianSpectrum(), Weighs()], epochs=3)).splitlines()
    assert lines[0].split() == [
        "measure",
        "events",
        "products",
        "gradients",
        "losses",
        "an",
        "event",
        "in",
        "all",
        "vectors",
    ]
    assert len({len(line) for line in lines[:3]}) == 1
    assert lines[1].startswith("hessian_spectrum")
    assert lines[-1].endswith("of training.")


def test_a_module_needs_batches() -> None:
    with pytest.raises(TypeError, match="needs batches="):
        landscape.plan(Plain())
    found = landscape.plan(Plain(), [Weighs()], batches=list(loader()))
    assert (found.n_parameters, found.examples) == (67, 48)


def test_counts_are_those_of_a_run(objective) -> None:
    spectrum = HessianSpectrum(k=2)
    planned = landscape.plan(objective, [spectrum]).rows[0].products
    with objective.session():
        spectrum.schema(None, objective.module)
        spent = spectrum.measure(objective, None, None)["n_matvecs"]
    assert planned / 1.5 <= spent <= 1.5 * planned


@pytest.mark.parametrize("form", [0, 1, 2])
def test_the_work_of_sharpness_by_counting(objective, form, monkeypatch) -> None:
    counted = {True: 0, False: 0}
    original = Objective.batch_loss

    def count(self, index, parameters, *given, **more):
        counted[any(each.requires_grad for each in parameters)] += 1
        return original(self, index, parameters, *given, **more)

    sharpness = Sharpness()
    vars(sharpness).update(sharpness.forms()[form])
    objective.gradient()  # its check of derivatives counts once, not for every event
    monkeypatch.setattr(Objective, "batch_loss", count)
    sharpness.measure(objective, None, None)
    work, batches = sharpness.work(), len(objective.batches)
    assert work.gradients == pytest.approx(counted[True] / batches, abs=3)
    assert work.evaluations == pytest.approx(counted[False] / batches, abs=4)


def test_without_callbacks_the_default_ones_are_planned() -> None:
    network = Objective(nn.Linear(4, 3), nn.functional.cross_entropy, [(torch.randn(8, 4), torch.randint(3, (8,)))])
    assert [row.name for row in landscape.plan(network).rows] == [
        "hessian_spectrum",
        "sharpness",
        "swa_trajectory",
        "compressibility",
        "mode_connectivity",
    ]
