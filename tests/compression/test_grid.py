"""The uniform grid: exact values, extreme scales, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from landscape._layout import ParameterLayout
from landscape.compression._grid import UniformTensor

GRID = UniformTensor()


def quantised(array: np.ndarray, knob: float) -> np.ndarray:
    return GRID.restore(GRID.quantise({"w": array}, knob))[0]


def test_integers_and_step_by_hand():
    array = np.array([[3.0, -4.0], [0.0, 5.0]])
    (part,) = GRID.quantise_at({"w": array}, {"w": 2.0})
    assert part.integers.tolist() == [2, -2, 0, 2]  # 1.5 and 2.5 go to the even neighbour
    assert part.restore().tolist() == [[4.0, -4.0], [0.0, 4.0]]
    (part,) = GRID.quantise({"w": array}, 0.5)
    assert part.step == pytest.approx(0.5 * np.sqrt(50 / 4), rel=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_restored_weights_are_integer_times_step_in_the_type(dtype):
    array = np.random.default_rng(0).normal(size=1000).astype(dtype)
    (part,) = GRID.quantise({"w": array}, 0.01)
    restored = part.restore()
    assert restored.dtype == dtype
    assert (restored == part.integers.astype(dtype) * dtype(part.step)).all()
    assert not np.signbit(restored[part.integers == 0]).any()
    assert np.abs(restored - array).max() <= part.step / 2 * (1 + 1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("knob", [2.0**-16, 0.1, 1.9, 1e6])
def test_extreme_scales_stay_finite(dtype, knob):
    limits = np.finfo(dtype)
    for scale in (limits.max, limits.max / 3, limits.tiny, limits.smallest_subnormal, dtype(1)):
        array = np.array([1, -1, 0.7, 0, -0.3], dtype=dtype) * dtype(scale)
        restored = quantised(array, knob)
        assert np.isfinite(restored).all()
        assert restored.dtype == dtype


def test_the_largest_float_is_not_rounded_out_of_range():
    array = np.array([np.finfo(np.float32).max, 1.0], dtype=np.float32)
    (part,) = GRID.quantise_at({"w": array}, [2e38])  # 3.4e38 is nearest to 4e38, which is no float32
    assert part.integers.tolist() == [1, 0]


def test_mean_square_error_is_that_of_the_high_rate_law():
    # E[(w - q)^2] = step^2 / 12, whence E[dL] = step^2 Tr(H) / 24.
    array = np.random.default_rng(0).normal(size=200_000)
    for knob in (0.5, 0.1):
        (part,) = GRID.quantise({"w": array}, knob)
        assert np.mean((part.restore() - array) ** 2) == pytest.approx(part.step**2 / 12, rel=0.02)


def test_ladder_goes_from_nothing_to_everything():
    array = np.zeros(50, dtype=np.float32)
    array[3] = -7.5  # the largest ratio of an element to the root mean square: sqrt(50)
    knobs = GRID.ladder(ParameterLayout(("w",), ((50,),)))
    assert (quantised(array, knobs[0]) == 0).all()
    assert quantised(array, knobs[-1]) == pytest.approx(array, rel=2**-16)
    assert np.all(np.diff(np.log2(knobs)) == pytest.approx(-1 / 16))
    assert knobs[-1] == 2.0**-16


def test_the_integers_do_not_change_with_the_scale():
    array = np.random.default_rng(0).normal(size=(40, 30))
    for factor in (5.0, 1 / 3, 1e-200, 1e200):
        (one,), (other,) = (GRID.quantise({"w": a}, 0.1) for a in (array, factor * array))
        assert (one.integers == other.integers).all()
        assert other.step == pytest.approx(factor * one.step, rel=1e-12)


@pytest.mark.parametrize("knob", [0.0, -1.0, float("nan"), float("inf")])
def test_a_knob_must_be_positive_and_finite(knob):
    with pytest.raises(ValueError, match="expected a positive finite number"):
        GRID.quantise({"w": np.ones(2)}, knob)


@pytest.mark.parametrize("steps", [{"v": 1.0}, {"w": 1.0, "v": 1.0}, [1.0, 2.0], []])
def test_steps_must_match_the_tensors(steps):
    with pytest.raises(ValueError, match="expected one step for each of 1 tensors"):
        GRID.quantise_at({"w": np.ones(2)}, steps)


@pytest.mark.parametrize("step", [0.0, -0.1, float("nan"), float("inf")])
def test_a_step_must_be_positive_and_finite(step):
    with pytest.raises(ValueError, match="the step of tensor 'w' is"):
        GRID.quantise_at({"w": np.ones(2)}, [step])


@pytest.mark.parametrize("step", [1e-300, 5e-324])
def test_a_step_beyond_float64_is_refused(step):
    with pytest.raises(ValueError, match="take a coarser step"):
        GRID.quantise_at({"w": np.array([1.0, 1e10])}, [step])
