"""What curvature may take of a large model's memory where no budget is given."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.callbacks import HessianSpectrum, _large_models
from landscape.callbacks._large_models import fitting, give_back, graphs_budget, unasked_budget
from landscape.curvature import hessian
from landscape.curvature._batchwise import MEMORY_BUDGET

SIZE = 4 * 5 + 5 + 5 * 3 + 3


@pytest.fixture
def objective() -> Objective:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    return Objective(model, nn.functional.cross_entropy, [(torch.randn(16, 4).double(), torch.arange(16) % 3)])


def test_small_models_have_a_gigabyte_and_large_ones_eight_vectors(objective, monkeypatch):
    monkeypatch.setattr(_large_models, "budget_bytes", lambda *_: 2**40)
    assert unasked_budget(objective) == 2**30
    monkeypatch.setattr(_large_models, "_LEAST", 100)
    assert unasked_budget(objective) == 8 * SIZE * 8
    monkeypatch.setattr(_large_models, "budget_bytes", lambda *_: 500)
    assert unasked_budget(objective) == 500


def test_batches_of_large_models_are_cut_to_the_budget_and_give_the_same_products(objective, monkeypatch):
    with objective.session():
        assert fitting(objective, 100) is objective
        assert graphs_budget(objective, 600) == MEMORY_BUDGET
        monkeypatch.setattr(_large_models, "_LARGE", 1)
        assert fitting(objective, 2**30) is objective
        small = fitting(objective, 2**14)
        assert graphs_budget(objective, 600) == 100
        assert 1 < len(small.batches) < 16
        assert [len(batch[0]) for batch in fitting(objective, 1).batches] == [1] * 16
        vector = torch.randn(SIZE).double()
        torch.testing.assert_close(hessian(small) @ vector, hessian(objective) @ vector, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_a_spectrum_without_a_budget_keeps_eight_vectors_of_a_large_model(live, monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 20), nn.Tanh(), nn.Linear(20, 3)).double()
    objective = Objective(model, nn.functional.cross_entropy, [(torch.randn(8, 40).double(), torch.arange(8) % 3)])
    exact = torch.linalg.eigvalsh(hessian(objective).dense())
    callback = HessianSpectrum(k=2, k_bottom=1, probes=1, tol=1e-3)
    vector, peaks = 8 * objective.n_parameters, []
    for least in (2**30, 1):
        monkeypatch.setattr(_large_models, "_LEAST", least)
        with live.Live() as memory, objective.session():
            row = callback.measure(objective, None, None)
        assert row["eigenvalues_top"] == pytest.approx(exact[-2:].flip(0).numpy(), rel=1e-3)
        peaks.append(memory.peak / vector)
    assert peaks[1] < 12 < 25 < peaks[0]


def test_memory_of_large_models_alone_is_given_back(objective, monkeypatch):
    asked = []
    monkeypatch.setattr(_large_models, "_trim", lambda: asked.append)
    give_back(objective)
    assert asked == []
    monkeypatch.setattr(_large_models, "_LARGE", SIZE)
    give_back(objective)
    assert asked == [0]


def test_a_c_library_without_this_function_is_left_alone(monkeypatch):
    def missing(name):
        raise OSError(name)

    _large_models._trim.cache_clear()
    monkeypatch.setattr(_large_models.ctypes, "CDLL", missing)
    assert _large_models._trim()(0) == 0
    _large_models._trim.cache_clear()
