"""The search for the fewest bits, on losses whose rise is known at every rung."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from landscape import MeasurementError
from landscape._layout import ParameterLayout
from landscape.compression import Bits, _rungs, bits, decode, encode
from landscape.compression._grid import UniformTensor


class Stand:
    """A loss over given weights with the part of `landscape.Objective` that the search uses."""

    def __init__(self, weights: dict[str, torch.Tensor], loss: Callable[[torch.Tensor], torch.Tensor]):
        self.layout = ParameterLayout.of(list(weights.items()))
        self.weights = torch.cat([w.reshape(-1) for w in weights.values()])
        self.function = loss
        self.calls = 0
        self.open = False
        self.clusters = None

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        self.open = True
        yield
        self.open = False

    def vector(self) -> torch.Tensor:
        return self.weights.clone()

    def loss_shares(self, vector: torch.Tensor) -> torch.Tensor:
        assert self.open
        self.calls += 1
        return self.function(vector).double()[None]

    def loss(self, vector: torch.Tensor) -> torch.Tensor:
        return self.loss_shares(vector)[0]


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a.weight": torch.randn(30, 20, generator=generator, dtype=torch.float64),
        "a.bias": 0.01 * torch.randn(20, generator=generator, dtype=torch.float64),
        "b.weight": 50 * torch.randn(7, 5, 3, generator=generator, dtype=torch.float64),
    }


def bowl(seed: int = 0, curvature: float = 1e-3) -> Stand:
    """0.7 + ½ Σ h (w - w0)²: the rise is ½ h times the squared error of the quantisation."""
    centre = torch.cat([w.reshape(-1) for w in weights(seed).values()])
    scale = torch.cat([w.reshape(-1) * 0 + w.square().mean() for w in weights(seed).values()])
    return Stand(weights(seed), lambda w: 0.7 + 0.5 * curvature * ((w - centre).square() / scale).sum())


@functools.cache
def every_rung(seed: int) -> list[tuple[float, float, float]]:
    """(knob, rise, ideal bits) of a bowl's whole ladder, from public encode and decode."""
    stand = bowl(seed)
    tensors = stand.layout.named(stand.weights)
    with stand.session():
        reference = float(stand.loss(stand.vector()))
        rungs = []
        for knob in UniformTensor().ladder(stand.layout):
            code = encode(tensors, float(knob))
            flat = np.concatenate([array.ravel() for array in decode(code).values()])
            rungs.append((float(knob), float(stand.loss(torch.from_numpy(flat))) - reference, code.ideal_bits))
    return rungs


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_bowl_against_the_whole_ladder(seed):
    stand = bowl(seed)
    result = bits(stand)
    rungs = every_rung(seed)
    rises = {knob: rise for knob, rise, _ in rungs}
    for index, tolerance in enumerate(result.tolerances):
        assert result.reached[index]
        assert result.loss_rise[index] <= tolerance
        assert result.loss_rise[index] == rises[result.knob[index]]
        shortest = min(ideal for _, rise, ideal in rungs if rise <= tolerance)
        assert result.ideal_bits[index] <= 1.02 * shortest
    assert result.loss == 0.7
    assert result.baseline == pytest.approx(0.7 + 0.5e-3 * result.n_parameters)
    assert result.n_evaluations == stand.calls <= 32


def test_the_knob_follows_the_high_rate_law():
    # ΔL = ½ h P (knob)² / 12 for all tensors in units of their root mean square.
    stand = bowl(curvature=1.0)
    result = bits(stand, tolerances=(0.003, 0.03, 0.3))
    predicted = np.sqrt(24 * result.tolerances / result.n_parameters)
    assert result.knob == pytest.approx(predicted, rel=0.1)


def test_bits_are_those_of_the_stream_that_encode_writes():
    stand = bowl()
    result = bits(stand)
    for index, knob in enumerate(result.knob):
        code = encode(stand.layout.named(stand.weights), float(knob))
        assert result.bits[index] == code.bits
        assert result.ideal_bits[index] == code.ideal_bits
        assert result.bits_per_parameter[index] == code.bits / result.n_parameters


def test_order_of_the_tolerances_is_kept_and_bits_never_rise():
    shuffled = bits(bowl(), tolerances=(0.3, 0.003, 0.1, 0.01, 0.03))
    assert shuffled.tolerances.tolist() == [0.3, 0.003, 0.1, 0.01, 0.03]
    assert np.all(np.diff(shuffled.bits[np.argsort(shuffled.tolerances)]) <= 0)
    assert np.all(shuffled.loss_rise <= shuffled.tolerances)


def test_a_loss_that_is_not_monotone_still_keeps_the_tolerances():
    centre = torch.cat([w.reshape(-1) for w in weights().values()])

    def bumpy(w: torch.Tensor) -> torch.Tensor:
        error = (w - centre).square().mean()
        return error * (1.2 + torch.sin(3e4 * error)) - 0.05 * torch.sin(40 * error)

    result = bits(Stand(weights(), bumpy), tolerances=np.geomspace(1e-4, 1, 12))
    assert result.reached.all()
    assert np.all(result.loss_rise <= result.tolerances)
    assert np.all(np.diff(result.bits) <= 0)


@pytest.mark.parametrize("family", ["uniform-tensor", "uniform-channel"])
def test_a_large_network_is_searched_tensor_by_tensor_with_the_same_outcome(monkeypatch, family):
    settings = {"family": family, "tolerances": (0.01, 0.1)}
    plain = bits(bowl(), **settings)
    monkeypatch.setattr(_rungs, "_LARGE", 1)
    streamed = bits(bowl(), **settings)
    for name, values in plain.to_dict().items():
        np.testing.assert_array_equal(streamed.to_dict()[name], values)


def test_what_decodes_to_other_weights_is_evaluated_anew(monkeypatch):
    plain = bits(bowl(), tolerances=(0.01, 0.1))

    def careless(code):
        """Decode to weights that are a little off where the code is the best for the tighter tolerance."""
        off = 1.2 if code.bits == plain.bits[0] else 1.0
        return {name: array * off for name, array in decode(code).items()}

    monkeypatch.setattr(_rungs, "decode", careless)
    stand = bowl()
    result = bits(stand, tolerances=(0.01, 0.1))
    assert result.bits[0] > plain.bits[0]
    assert result.loss_rise[0] <= 0.01
    assert result.bits[1] == plain.bits[1]
    assert result.loss_rise[1] == plain.loss_rise[1]
    assert result.n_evaluations == stand.calls == plain.n_evaluations + 1


def test_decoded_weights_cost_no_second_evaluation():
    stand, seen = bowl(), []
    steady = stand.function

    def watched(w: torch.Tensor) -> torch.Tensor:
        seen.append(w.numpy().tobytes())
        return steady(w)

    stand.function = watched
    result = bits(stand)
    assert len(seen) == len(set(seen)) == result.n_evaluations
    for knob, rise in zip(result.knob, result.loss_rise, strict=True):
        decoded = decode(encode(stand.layout.named(stand.weights), float(knob)))
        flat = np.concatenate([array.ravel() for array in decoded.values()])
        assert flat.tobytes() in seen
        assert rise == float(steady(torch.from_numpy(flat))) - result.loss


def test_shares_of_the_tensors():
    result = bits(bowl())
    assert result.names.tolist() == ["a.weight", "a.bias", "b.weight"]
    assert result.sizes.tolist() == [600, 20, 105]
    assert result.tensor_bits.sum(axis=1) == pytest.approx(result.ideal_bits, rel=1e-12)
    for share, knob in zip(result.tensor_bits, result.knob, strict=True):
        alone = [encode({name: w}, float(knob)).ideal_bits for name, w in weights().items()]
        assert share == pytest.approx(np.array(alone), rel=1e-12)


@pytest.mark.slow
def test_the_measured_rungs_are_the_ladders_own():
    stand = bowl()
    result = bits(stand)
    rungs = {knob: (rise, ideal) for knob, rise, ideal in every_rung(0)}
    assert np.all(np.diff(result.rung_knob) < 0)
    assert len(result.rung_knob) >= result.n_evaluations - 1
    for knob, rise, ideal in zip(result.rung_knob, result.rung_rise, result.rung_ideal_bits, strict=True):
        assert rise == rungs[knob][0]
        if rise <= result.tolerances.max():
            assert ideal == pytest.approx(rungs[knob][1], rel=1e-12)
        else:
            assert math.isnan(ideal)
    # No shorter code among those evaluated.
    for index, tolerance in enumerate(result.tolerances):
        kept = result.rung_ideal_bits[result.rung_rise <= tolerance]
        assert result.ideal_bits[index] == pytest.approx(kept.min(), rel=1e-12)


def test_real_lengths_never_rise_even_where_the_order_of_the_ideal_ones_differs(monkeypatch):
    plain = bits(bowl(), tolerances=(0.01, 0.1))

    def clumsy(weights, knob, family):
        code = encode(weights, knob, family=family)
        return dataclasses.replace(code, payload=code.payload + bytes(1000 if knob == plain.knob[1] else 0))

    def forgiving(code):
        return decode(dataclasses.replace(code, payload=code.payload.removesuffix(bytes(1000))))

    monkeypatch.setattr(_rungs, "encode", clumsy)
    monkeypatch.setattr(_rungs, "decode", forgiving)
    result = bits(bowl(), tolerances=(0.1, 0.01))
    assert result.bits.tolist() == [plain.bits[0]] * 2
    assert result.loss_rise.tolist() == [plain.loss_rise[0]] * 2


def test_a_tolerance_that_is_out_of_reach():
    centre = torch.cat([w.reshape(-1) for w in weights().values()])
    stand = Stand(weights(), lambda w: 1.0 - torch.exp(-1e12 * (w - centre).square().sum()))
    result = bits(stand, tolerances=(0.1, 2.0))
    assert result.reached.tolist() == [False, True]
    assert np.isnan(result.bits).tolist() == [True, False]
    for column in (result.ideal_bits, result.bits_per_parameter, result.loss_rise, result.knob):
        assert math.isnan(column[0])
    assert result.ideal_bits[1] == 2 * 3  # three tensors of zeros
    assert result.bits[1] == 8


def test_coarse_weights_may_have_no_loss():
    centre = torch.cat([w.reshape(-1) for w in weights().values()])
    for zero in (math.nan, math.inf, -math.inf):

        def loss(w: torch.Tensor, zero: float = zero) -> torch.Tensor:
            return (w - centre).square().mean() if w.abs().max() > 0 else torch.tensor(zero)

        stand = Stand(weights(), loss)
        result = bits(stand, tolerances=(0.01,))
        assert result.reached.all()
        assert 0 < result.loss_rise[0] <= 0.01
        with pytest.raises(MeasurementError, match="need a finite baseline above the loss"):
            bits(stand, tolerances=(0.01,), relative=True)


def test_relative_tolerances_are_fractions_of_what_was_achieved():
    stand = bowl()
    relative = bits(stand, tolerances=(0.01, 0.1), relative=True)
    height = relative.baseline - relative.loss
    assert relative.tolerances.tolist() == [0.01, 0.1]
    assert relative.allowed_rise == pytest.approx(np.array([0.01, 0.1]) * height)
    assert relative.bits.tolist() == bits(stand, tolerances=relative.allowed_rise).bits.tolist()
    flat = Stand(weights(), lambda w: torch.tensor(1.0))
    with pytest.raises(MeasurementError, match="relative to the difference need a finite baseline above the loss"):
        bits(flat, relative=True)
    assert bits(flat).bits.tolist() == [8] * 5  # nothing is needed for a constant loss


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reference_loss_that_is_not_finite(value):
    with pytest.raises(MeasurementError, match=f"the loss at the present weights is {value}"):
        bits(Stand(weights(), lambda w: torch.tensor(value)))


def test_weights_that_are_not_finite():
    bad = {"w": torch.tensor([1.0, math.nan])}
    with pytest.raises(MeasurementError, match="tensor 'w' has 1 of 2 elements that are NaN or infinite"):
        bits(Stand(bad, lambda w: torch.tensor(1.0)))


@pytest.mark.parametrize("tolerances", [(), (0.1, 0.0), (-1.0,), (math.nan,), (math.inf,), 0.1])
def test_tolerances_must_be_positive(tolerances):
    with pytest.raises(ValueError, match="expected a sequence of at least one positive finite number"):
        bits(bowl(), tolerances=tolerances)


def test_an_unknown_family():
    with pytest.raises(ValueError, match="there is no family 'tensor-uniform'"):
        bits(bowl(), "tensor-uniform")


def test_result_is_plain_and_frozen():
    result = bits(bowl())
    assert isinstance(result, Bits)
    plain = result.to_dict()
    assert plain["family"] == "uniform-tensor"
    for name in ("tolerances", "allowed_rise", "bits", "ideal_bits", "bits_per_parameter", "loss_rise", "knob"):
        assert plain[name].dtype == np.float64
        assert plain[name].shape == (5,)
    assert plain["reached"].dtype == bool
    with pytest.raises(AttributeError):
        result.loss = 1.0
