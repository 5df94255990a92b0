"""Two gloo processes that share the measurement batches find what one process finds, and fail together."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from landscape import Objective
from landscape._distributed import ALONE, ProcessGroup

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    script = str(Path(__file__).with_name("processes.py"))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", script, str(folder)],
            env=environment | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in started:
            process.kill()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def one(processes) -> dict[str, Any]:
    """What one process finds on the same examples."""
    torch.manual_seed(0)
    return json.loads(json.dumps(processes.measure(lambda whole: whole)))


def assert_close(found: Any, expected: Any, tolerance: float, where: str) -> None:
    """Compare nested values: numbers relative to the largest of their list, all else exactly."""
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key in expected:
            assert_close(found[key], expected[key], tolerance, f"{where}/{key}")
    elif isinstance(expected, list) and not all(isinstance(entry, (int, float)) for entry in expected):
        assert len(found) == len(expected), where
        for index, entry in enumerate(expected):
            assert_close(found[index], entry, tolerance, f"{where}/{index}")
    elif isinstance(expected, (list, float)):
        scale = float(np.abs(expected).max())
        assert np.abs(np.subtract(found, expected)).max() <= tolerance * scale, (where, found, expected)
    else:
        assert found == expected, where


@slow
@pytest.mark.parametrize("case", ["uneven float64", "one batch", "strategies", "batchnorm"])
def test_float64_is_that_of_one_process(one, two, case) -> None:
    assert_close(two[0]["measured"][case], one[case], 1e-9, case)


@slow
# Estimates that stop at a tolerance, and ascents along signs, magnify the rounding of single sums.
@pytest.mark.parametrize("name", ["loss", "evaluated", "gradient", "top", "bottom", "trace", "ggn", "fisher", "mc"])
def test_float32_is_that_of_one_process_within_its_rounding(one, two, name) -> None:
    case = "uneven float32"
    assert_close(two[0]["measured"][case][name], one[case][name], 1e-6, name)


@slow
def test_all_processes_find_bit_equal_numbers(two) -> None:
    assert two[0]["measured"] == two[1]["measured"]


@slow
def test_each_process_does_half(two) -> None:
    whole = {"operator": 4, "ten products": 40, "gradient": 4, "kept graphs": 4, "n_matvecs": 10}
    half = {"operator": 2, "ten products": 20, "gradient": 2, "kept graphs": 2, "n_matvecs": 10}
    for found in two:
        assert found["counts"] == {"whole": whole, "shared": half}


@slow
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_in_one_process_is_raised_in_both(two, rank) -> None:
    *errors, after = two[rank]["failures"]["error"]
    assert len(set(errors)) == 1
    assert errors[0].startswith("RuntimeError: KeyError: 'broken example' (on process ")
    assert math.isfinite(after)


@slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_nan_in_one_process_is_one_in_both(two, rank) -> None:
    loss, gradient, operator, product, after = two[rank]["failures"]["nan"]
    assert loss == gradient == "nothing"  # the numbers themselves are NaN
    assert operator.startswith("MeasurementError: the loss on the measured examples is nan")
    assert product.startswith("MeasurementError: a curvature product is not finite")
    assert math.isfinite(after)


@slow
@pytest.mark.parametrize(
    ("way", "text"),
    [
        ("elsewhere", "MeasurementError: MemoryError: out of memory (on process 1 of 2)"),
        ("apart", "MeasurementError: the processes that measure together came to different places in the measure"),
        ("swallowed", "MeasurementError: cannot (on process 0 of 2)"),
        ("late", "MeasurementError: too late (on process 0 of 2)"),
        ("everywhere", "ValueError: the same in all"),
    ],
)
def test_processes_that_part_find_out_and_meet_again(two, way, text) -> None:
    for found in two:
        error, loss_after = found["failures"][way]
        assert error == text
        assert loss_after == pytest.approx(found["measured"]["uneven float64"]["loss"], rel=1e-12)


@slow
def test_what_cannot_be_shared_is_refused_in_both(two) -> None:
    for found in two:
        failures = found["failures"]
        assert failures["other batches"].startswith("MeasurementError: the processes that measure together hold ")
        assert "hold different batches" in failures["other batches"]
        assert "hold different weights" in failures["other weights"]
        assert "exchanges tensors between processes" in failures["gathering"]
        assert "pickle" in failures["unpicklable"]
        assert failures["first"] == 10
        assert failures["map"] == [1, 4, 9]


def test_without_torch_distributed_nothing_is_shared(processes) -> None:
    whole = processes.objective()
    shared = whole.shard()
    assert shared.processes is ALONE
    assert shared.own == list(range(5))
    assert torch.equal(shared.gradient(), whole.gradient())
    assert ALONE.map(lambda item: item + 1, [1, 2]) == [2, 3]


def test_the_largest_pieces_are_dealt_first() -> None:
    shares = []
    for rank in range(3):
        group = ProcessGroup.__new__(ProcessGroup)
        group.rank, group.size = rank, 3
        shares.append(group.share([1, 10, 2, 3, 4, 5]))
    assert shares == [[1], [0, 2, 5], [3, 4]]  # sizes 10, 8 and 7


def test_an_objective_at_another_point_is_shared_too(processes) -> None:
    whole: Objective = processes.objective()
    point = 2 * whole.vector()
    assert float(whole.at(point).shard().loss()) == float(whole.loss(point))
