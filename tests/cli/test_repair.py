"""`landscape repair`."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner

from landscape import open_run
from landscape.cli import main


@pytest.fixture
def killed(run_file: Path, tmp_path: Path) -> Path:
    """A run file with a row that was begun."""
    path = tmp_path / "killed.h5"
    path.write_bytes(run_file.read_bytes())
    with h5py.File(path, "r+") as file:
        file["sharpness/average_case"].resize(4, axis=0)
    return path


def test_it_says_what_is_there_and_writes_a_copy(runner: CliRunner, killed: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean.h5"
    said = runner.invoke(main, ["repair", str(killed)])
    assert (said.exit_code, said.stderr) == (0, "")
    assert "Rows begun and not finished: 1; all others are whole." in said.stdout
    assert ["sharpness", "3", "1", "0", "to", "10", "1"] in [line.split() for line in said.stdout.splitlines()]
    assert not out.exists()
    for _ in range(2):
        result = runner.invoke(main, ["repair", str(killed), "--out", str(out)])
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.endswith(f"Written: {out}\n")
    assert open_run(out).table().equals(open_run(killed).table())
    assert "All rows are whole." in runner.invoke(main, ["repair", str(out)]).stdout


def test_json(runner: CliRunner, killed: Path) -> None:
    found = json.loads(runner.invoke(main, ["repair", str(killed), "--json"]).stdout)
    (group,) = [group for group in found["groups"] if group["name"] == "sharpness"]
    assert group == {
        "name": "sharpness",
        "rows": 3,
        "failed": 1,
        "first_step": 0,
        "last_step": 10,
        "unfinished": 1,
        "damaged": [],
    }
    assert found["written"] is None


@pytest.mark.parametrize("content", [None, b"", b"step,loss\n", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_what_is_no_run_is_one_sentence(runner: CliRunner, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "no.h5"
    if content is not None:
        path.write_bytes(content)
    result = runner.invoke(main, ["repair", str(path), "--out", str(tmp_path / "clean.h5")])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "clean.h5").exists()
