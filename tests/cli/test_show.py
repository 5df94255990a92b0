"""`landscape show`."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from landscape.cli import main
from landscape.record import GroupSchema, Recorder, Variable


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no strict JSON")


def test_json_is_strict_and_alone_on_stdout(runner: CliRunner, run_file: Path) -> None:
    result = runner.invoke(main, ["show", "--json", str(run_file)])
    assert (result.exit_code, result.stderr) == (0, "")
    summary = json.loads(result.stdout, parse_constant=_refuse)
    assert summary["attributes"]["hyper_parameters"] == {"batch_size": 32, "note": None}
    by_name = {value["name"]: value for value in summary["values"]}
    assert by_name["average_case"]["last"] == {"step": 10, "value": 0.1, "stderr": 0.01}
    assert by_name["bits[tolerance=0.03]"]["first"] == {"step": 0, "value": 100.0, "stderr": None}
    assert summary["failures"] == [
        {"group": "sharpness", "step": 5, "status": "failed", "reason": "the loss is NaN [1, 2]"}
    ]


def test_the_summary_for_people(runner: CliRunner, run_file: Path) -> None:
    result = runner.invoke(main, ["show", str(run_file)])
    assert result.exit_code == 0
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines[0] == str(run_file)
    words = [line.split() for line in lines]
    assert ["model", "Net"] in words
    assert ["sharpness", "3", "1", "0", "to", "10", "1.5", "how", "sharp"] in words
    assert any(line[:7] == ["average_case", "0.1", "±", "0.01", "0.1", "±", "0.01"] for line in words)
    assert "failed: sharpness at step 5: the loss is NaN [1, 2]" in lines


def test_a_narrow_terminal_cuts_no_number(run_file: Path) -> None:
    result = CliRunner(env={"COLUMNS": "50"}).invoke(main, ["show", str(run_file)])
    assert "0.1 ± 0.01" in result.stdout
    assert "meaning" not in result.stdout


def test_an_empty_run(runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "landscape.h5"
    Recorder.create(path, {"model": "Net"})
    assert runner.invoke(main, ["show", str(path)]).exit_code == 0


def test_many_failures_are_counted(runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "landscape.h5"
    recorder = Recorder.create(path, {})
    recorder.declare(GroupSchema("sharpness", "", []))
    for step in range(13):
        recorder.append("sharpness", {"step": step, "status": 1, "reason": "why"})
    recorder.close()
    few = runner.invoke(main, ["show", str(path)]).stdout
    assert few.count("failed: ") == 10
    assert "3 more such rows" in few
    assert runner.invoke(main, ["show", "--all", str(path)]).stdout.count("failed: ") == 13


def test_rows_of_a_part_of_their_values(runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "landscape.h5"
    recorder = Recorder.create(path, {"model": "Net"})
    recorder.declare(GroupSchema("sharpness", "how sharp", [Variable("sam")]))
    for step, status in enumerate(("ok", "partial", "surrogate", "failed")):
        recorder.append("sharpness", {"step": step, "status": status, "reason": f"sam: {status}"})
    lines = runner.invoke(main, ["show", str(path)]).stdout.splitlines()
    words = [line.split() for line in lines]
    assert ["group", "rows", "failed", "partial", "steps", "seconds", "what"] in words
    assert ["sharpness", "4", "1", "2", "0", "to", "3", "0.0", "how", "sharp"] in words
    for status in ("partial", "surrogate", "failed"):
        assert any(line.startswith(f"{status}: sharpness at step ") for line in lines)


def test_what_the_loss_divides_by_is_shown(runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "landscape.h5"
    recorder = Recorder.create(path, {})
    measured = {"n_examples": 96, "source": "dataset", "mode": "eval", "fingerprint": "a", "noise_seed": None}
    whole = measured | {"weighting": "targets", "weighting_evidence": "a mean, checked"}
    recorder.declare(GroupSchema("sharpness", "", [], attributes={"measured": whole}))
    recorder.declare(GroupSchema("compressibility", "", [], attributes={"measured": whole}))
    other = measured | {"weighting": "batches", "weighting_evidence": "it compares examples"}
    recorder.declare(GroupSchema("hessian_spectrum", "", [], attributes={"measured": other}))
    lines = runner.invoke(main, ["show", str(path)]).stdout.splitlines()
    data = "96 examples (dataset), eval mode; the loss is the mean over"
    (shared,) = (line for line in lines if data in line and "compressibility" in line)
    assert set(shared.partition(":")[0].split(", ")) == {"sharpness", "compressibility"}
    assert shared.endswith(f"{data} targets (a mean, checked)")
    assert f"hessian_spectrum: {data} the batches as they are given (it compares examples)" in lines
