"""The search on ladders unlike the grid's: short, running the other way, or of one rung."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from landscape import Objective
from landscape._layout import ParameterLayout
from landscape.compression import bits, decode, encode
from landscape.compression._families import FAMILIES
from landscape.compression._grid import UniformTensor


class Levels:
    """A family unlike the grid: few rungs, knobs that grow from coarse to fine, nothing zero at the coarsest."""

    name = "levels"

    def ladder(self, layout: ParameterLayout) -> np.ndarray:
        return np.array([1.0, 2, 3, 5, 8, 12, 20, 40])

    def quantise(self, arrays, knob):
        assert knob in self.ladder(None)
        grid = UniformTensor()
        ranges = {name: float(np.ptp(array)) for name, array in arrays.items()}
        parts = grid.quantise_at(arrays, {name: width / knob for name, width in ranges.items()})
        return [(part, knob) for part in parts]

    def restore(self, parts):
        # Half a step up, so that the coarsest code is no network of zeros.
        return [part.restore() + 0.5 * (knob == 1) for part, knob in parts]

    def write(self, parts, sink):
        for part, knob in parts:
            sink.uniform(int(knob), 6)
            UniformTensor().write([part], sink)

    def read(self, layout, source):
        parts = []
        for name, shape in zip(layout.names, layout.shapes, strict=True):
            knob = float(source.uniform(1, 6)[0])
            parts += [(part, knob) for part in UniformTensor().read(ParameterLayout((name,), (shape,)), source)]
        return parts


@pytest.fixture
def levels(monkeypatch):
    monkeypatch.setitem(FAMILIES, "levels", Levels())
    return "levels"


@pytest.fixture
def bowl(quadratic):
    """0.7 + ½ h Σ_t ‖w − w₀‖²/rms_t², over three tensors of unlike scales."""

    def make(curvature: float = 1e-3) -> Objective:
        generator = torch.Generator().manual_seed(0)
        shapes = {"a_weight": (1.0, (30, 20)), "a_bias": (0.01, (20,)), "b_weight": (50.0, (7, 5, 3))}
        tensors = {
            name: scale * torch.randn(shape, generator=generator, dtype=torch.float64)
            for name, (scale, shape) in shapes.items()
        }
        scales = [torch.full((tensor.numel(),), float(tensor.square().mean())) for tensor in tensors.values()]
        return quadratic(tensors, curvature / torch.cat(scales))

    return make


def test_a_short_ladder_with_knobs_that_grow(levels, bowl):
    objective = bowl()
    result = bits(objective, levels, tolerances=(0.001, 0.01, 0.1))
    assert result.baseline == float(objective.loss(torch.zeros_like(objective.vector())))
    rises = []
    for knob in Levels().ladder(objective.layout):
        decoded = decode(encode(objective.layout.named(objective.vector()), float(knob), family=levels))
        flat = torch.from_numpy(np.concatenate([array.ravel() for array in decoded.values()]))
        rises.append(float(objective.loss(flat)) - result.loss)
    first = [next(i for i, rise in enumerate(rises) if rise <= tolerance) for tolerance in result.tolerances]
    assert result.knob.tolist() == [Levels().ladder(objective.layout)[i] for i in first]
    assert result.loss_rise.tolist() == [rises[i] for i in first]
    assert result.n_evaluations <= 10  # the loss, zeros, and eight rungs


def test_a_ladder_whose_finest_rung_misses_the_tolerance(levels, bowl):
    result = bits(bowl(curvature=10.0), levels, tolerances=(1e-6, 1e3))
    assert result.reached.tolist() == [False, True]
    assert np.isnan(result.tensor_bits[0]).all()
    assert math.isnan(result.bits[0])
    assert np.isfinite(result.tensor_bits[1]).all()


def test_a_ladder_of_one_rung(monkeypatch, bowl):
    class One(Levels):
        def ladder(self, layout):
            return np.array([40.0])

    monkeypatch.setitem(FAMILIES, "levels", One())
    result = bits(bowl(), "levels", tolerances=(1e-9, 1.0))
    assert result.reached.tolist() == [False, True]
    assert result.rung_knob.tolist() == [40.0]
