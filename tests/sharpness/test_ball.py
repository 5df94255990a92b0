from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape.sharpness._ball import Radii, any_moves, check, project_, scale, steepest, stretch_, stretched_norm

WEIGHTS = st.lists(st.sampled_from([0.0, -2.0, 0.5, 1e-8, 3.0]), min_size=2, max_size=6)


@settings(max_examples=60, deadline=None)
@given(WEIGHTS, st.sampled_from(["l2", "linf"]), st.booleans(), st.floats(0.01, 10), st.integers(0, 100))
def test_projection_stays_inside_and_keeps_zeros(weights, norm, adaptive, rho, seed):
    w = torch.tensor(weights, dtype=torch.float64)
    c = scale(w, adaptive)
    delta = torch.randn(len(w), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 5
    inside = project_(delta.clone(), Radii(w, adaptive), rho, norm)
    ratio = inside[c > 0] / c[c > 0]
    length = torch.linalg.vector_norm(ratio, ord=2 if norm == "l2" else float("inf")) if len(ratio) else torch.zeros(())
    assert float(length) <= rho * (1 + 1e-12)
    assert not inside[c == 0].any()
    torch.testing.assert_close(project_(inside.clone(), c, rho, norm), inside)


def test_steepest_is_the_unit_step_of_largest_gain():
    gradient, c = torch.tensor([1.0, -2.0, 3.0]).double(), torch.tensor([0.5, 1.0, 0.0]).double()
    step = steepest(gradient, c, "l2")
    torch.testing.assert_close(torch.linalg.vector_norm(step[:2] / c[:2]), torch.tensor(1.0).double())
    assert float(gradient @ step) == pytest.approx(float(torch.linalg.vector_norm(c * gradient)))
    torch.testing.assert_close(steepest(gradient, c, "linf"), torch.tensor([0.5, -1.0, 0.0]).double())
    assert not steepest(torch.zeros(3), torch.ones(3), "l2").any()


@pytest.mark.parametrize("rho", [0, -1.0, float("nan"), float("inf")])
def test_radius_must_mean_something(rho):
    with pytest.raises(ValueError, match="rho is"):
        check(rho, "l2")
    with pytest.raises(ValueError, match="norm is 'l1'"):
        check(1.0, "l1")


def test_vectors_of_several_pieces_are_as_those_of_one(monkeypatch):
    torch.manual_seed(0)
    w, gradient = torch.randn(2, 11).double()
    w[4] = 0.0

    def all_of(c) -> list[torch.Tensor]:
        found = [project_(gradient.clone(), c, 0.3, norm) for norm in ("l2", "linf")]
        found += [steepest(gradient, c, norm) for norm in ("l2", "linf")]
        return [*found, stretch_(gradient.clone(), c), stretched_norm(gradient, c)[None]]

    whole = all_of(w.abs())
    monkeypatch.setattr("landscape.sharpness._ball._PIECE", 4)
    torch.testing.assert_close(all_of(Radii(w, adaptive=True)), whole)
    torch.testing.assert_close(whole[-1], torch.linalg.vector_norm(w * gradient)[None])
    only_last = torch.zeros(11).double()
    only_last[10] = 1.0
    assert any_moves(only_last, Radii(w, adaptive=True))
    only_last[10], only_last[4] = 0.0, 1.0
    assert not any_moves(only_last, Radii(w, adaptive=True))
