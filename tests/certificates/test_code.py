"""The payload is a prefix-free code, its length is no less than the model's, and its steps are exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from landscape._errors import MeasurementError
from landscape.certificates import SubspaceCode
from landscape.certificates._grids import GridTensor, nearest_step, step_at
from landscape.certificates._payload import payload_of, read_payload, tensors_of
from landscape.certificates._skeleton import Skeleton
from landscape.compression._entropy import kt_bits


class Two(nn.Module):
    """Two weights and a buffer that may be in the payload."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("shift", torch.zeros(1))


def codes(steps):
    for largest in range(1, 9):
        levels = range(-largest, largest + 1)
        for step, *theta in itertools.product(steps, levels, levels):
            yield SubspaceCode("zero", 0, None, None, largest, step, np.array(theta))


def test_kraft_over_an_enumerated_part_of_the_code():
    skeleton = Skeleton(Two())
    steps = [0, 1, 100, 255, 256, 290, 400, 511]
    payloads = [payload_of(code, skeleton) for code in codes(steps)]
    assert len(set(payloads)) == len(payloads) == 8 * 968
    total = sum(2.0 ** (-8 * len(payload)) for payload in payloads)
    # These are 8 of 512 steps, and half of the code says that the buffer is as constructed.
    assert total <= 8 / 512 / 2
    ordered = sorted(payloads)
    assert not any(after.startswith(before) for before, after in itertools.pairwise(ordered))


def test_every_network_is_read_back_whatever_comes_after_it():
    skeleton = Skeleton(Two())
    for code in itertools.islice(codes([17, 300]), 0, None, 37):
        payload = payload_of(code, skeleton)
        again = read_payload(code.settings(), payload, skeleton)
        assert np.array_equal(again.integers, code.integers)
        assert (again.largest, again.step, again.others) == (code.largest, code.step, {})
        with pytest.raises(MeasurementError, match="not the one of the network"):
            read_payload(code.settings(), payload + b"\0", skeleton)
        exact = 1 + 3 + 9 + kt_bits(np.bincount(code.integers + code.largest, minlength=2 * code.largest + 1))
        assert exact <= 8 * len(payload) <= exact + 16


def test_a_long_code_is_no_longer_than_its_model_says():
    network = nn.Linear(400, 25, bias=False)
    theta = np.random.default_rng(0).choice([-2, -1, 0, 1, 2], 10_000, p=[0.02, 0.08, 0.8, 0.08, 0.02])
    code = SubspaceCode("initial", 0, None, None, 2, 250, theta)
    ideal = 12 + kt_bits(np.bincount(theta + 2, minlength=5))
    assert ideal <= 8 * len(payload_of(code, Skeleton(network))) <= 1.01 * ideal + 64


def test_the_ladder_of_steps_is_exact_and_rises():
    steps = [step_at(index) for index in range(512)]
    assert all(one < other <= one * 9 / 8 for one, other in itertools.pairwise(steps))
    assert steps[8 * 36] == 1.0
    assert steps[8 * 36 + 4] == 1.5
    assert [nearest_step(step) for step in steps] == list(range(512))
    assert nearest_step(1.49) == 8 * 36 + 3
    assert (nearest_step(0.0), nearest_step(1e-30), nearest_step(1e30)) == (0, 0, 511)


def test_a_tensor_on_a_grid_is_within_half_a_step():
    values = np.random.default_rng(0).normal(size=50) * 7
    grid = GridTensor.of(values, 4)
    assert np.abs(grid.restore() - values).max() <= step_at(grid.step) / 2
    assert step_at(grid.step) <= np.sqrt(np.mean(values**2)) / 16
    assert not GridTensor.of(np.zeros(3), 4).restore().any()
    assert GridTensor.of(np.zeros(0), 4).restore().shape == (0,)


def test_buffers_in_the_payload():
    skeleton = Skeleton(Two())
    code = SubspaceCode("zero", 0, None, None, 1, 288, np.array([1, -1]), {"shift": GridTensor.of(np.array([2.5]), 6)})
    payload = payload_of(code, skeleton)
    again = read_payload(code.settings(), payload, skeleton)
    tensors = tensors_of(again, skeleton)
    assert tensors["shift"].tolist() == [2.5]
    # Two weights: 1 over the root of the vector's length.
    np.testing.assert_array_equal(tensors["weight"], np.array([1, -1]) / np.sqrt(2))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"codec": "zip"}, "codec is 'zip'"),
        ({"start": "trained"}, "start is 'trained'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": True}, "seed is True"),
        ({"dimension": 3}, "from 1 to 2 dimensions"),
        ({"dimension": 0}, "from 1 to 2 dimensions"),
        ({"taps": 1}, "taps is 1"),
        ({"codec": "weights", "family": "none"}, "no family 'none'"),
    ],
)
def test_settings_that_are_of_no_network(changes, sentence):
    skeleton = Skeleton(Two())
    code = SubspaceCode("zero", 0, None, None, 1, 288, np.array([1, -1]))
    with pytest.raises(MeasurementError, match=sentence):
        read_payload(code.settings() | changes, payload_of(code, skeleton), skeleton)
