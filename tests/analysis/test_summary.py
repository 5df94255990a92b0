"""What a run holds, in plain data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from landscape import open_run
from landscape.analysis import summarize
from landscape.record import Coordinate, GroupSchema, MemoryRecorder, Variable


def values(summary: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(value["group"], value["name"]): value for value in summary["values"]}


def test_groups_and_failures(full_run: Path) -> None:
    summary = summarize(full_run)
    assert summary["path"] == str(full_run)
    assert summary["attributes"]["hyper_parameters"]["nested"] == {"noise": 0.2}
    assert [group["name"] for group in summary["groups"]] == open_run(full_run).groups
    sharpness = next(group for group in summary["groups"] if group["name"] == "sharpness")
    assert sharpness == {
        "name": "sharpness",
        "description": "sharpness of the loss",
        "rows": 3,
        "failed": 1,
        "partial": 0,
        "first_step": 0,
        "last_step": 20,
        "wall_seconds": 1.5,
        "attributes": {"settings": {"rho_sam": 0.05, "rho_average": 0.1, "rho_worst": 0.5}},
    }
    assert {"group": "sharpness", "step": 10, "status": "failed", "reason": "the loss is NaN"} in summary["failures"]
    assert len(summary["failures"]) == 5


def test_first_and_last_values_with_their_errors(full_run: Path) -> None:
    found = values(summarize(open_run(full_run)))
    trace = found["hessian_spectrum", "trace"]
    assert trace["first"] == {"step": 0, "value": 20.0, "stderr": 2.0}
    assert trace["last"]["step"] == 20
    assert trace["label"] == "Hessian trace (not invariant)"
    assert found["hessian_spectrum", "n_eff[z=0.1]"]["last"]["stderr"] == 0.3
    assert math.isnan(found["hessian_spectrum", "lambda_max"]["last"]["stderr"])
    assert found["", "train_loss"]["last"]["value"] == pytest.approx(0.1)
    assert found["compressibility", "bits[tolerance=0.03]"]["main"]
    assert not found["compressibility", "ideal_bits[tolerance=0.03]"]["main"]
    assert not found["mode_connectivity", "barrier_train_loss[bezier,worse_end]"]["main"]
    assert not any(name.endswith("_stderr") or "reason" in name for _, name in found)


def test_values_that_failed_at_the_ends_are_not_the_first_or_last(make_run: Any) -> None:
    found = values(summarize(make_run(failed=2)))
    assert found["sharpness", "average_case"]["last"] == {"step": 10, "value": 0.2, "stderr": 0.01}


def test_a_flag_is_shown_once_it_was_raised() -> None:
    recorder = MemoryRecorder({})
    flags = Coordinate("flag_name", ("diverged", "not_mixed"))
    recorder.declare(GroupSchema("learning_coefficient", "chains", [Variable("flag", ("flag_name",), "i1")], [flags]))
    for step, row in enumerate(([0, 1], [0, 0])):
        recorder.append("learning_coefficient", {"step": step, "flag": row})
    found = values(summarize(recorder.run()))
    assert found["learning_coefficient", "flag[flag_name=not_mixed]"]["main"]
    assert not found["learning_coefficient", "flag[flag_name=diverged]"]["main"]
    label = found["learning_coefficient", "flag[flag_name=not_mixed]"]["label"]
    assert label == "speaks against the learning coefficient: not_mixed (1: yes)"


def test_a_run_without_groups(make_run: Any) -> None:
    summary = summarize(make_run(groups=()))
    assert (summary["groups"], summary["values"], summary["failures"]) == ([], [], [])
