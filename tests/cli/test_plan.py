"""`landscape plan` prints what a training's measurements would cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from landscape.cli import main

CODE = """
import torch
from torch import nn


def net():
    return nn.Linear(4, 3)


def batches():
    x = torch.randn(48, 4, generator=torch.Generator().manual_seed(0))
    return list(zip(x.split(16), x[:, :3].argmax(1).split(16)))
"""


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code_of_the_user.py").write_text(CODE)

    def run(*options: str) -> Result:
        where = ["--model", "code_of_the_user.py:net", "--data", "code_of_the_user.py:batches"]
        return CliRunner().invoke(main, ["plan", *where, *options])

    return run


def test_a_table(planned) -> None:
    done = planned("--epochs", "7")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[1].split()[:2] == ["hessian_spectrum", "7"]
    assert len(lines) == 7


def test_json_with_an_overhead(planned) -> None:
    done = planned("--epochs", "7", "--overhead", "10%", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert (found["n_parameters"], found["examples"]) == (15, 48)
    assert {row["name"] for row in found["rows"]} >= {"sharpness", "compressibility"}
    assert found["total"] == pytest.approx(sum(row["total"] for row in found["rows"]))


def test_a_share_that_is_none(planned) -> None:
    done = planned("--overhead", "ten")
    assert done.exit_code == 2
    assert "give a share of the training's time" in done.output
