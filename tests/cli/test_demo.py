"""`landscape demo`: what it hands to the study, and what it says where that fails."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from landscape.cli import main

_STUDY = "landscape.studies.digits_demo"


def put_study(monkeypatch: pytest.MonkeyPatch, main_function: Any) -> None:
    monkeypatch.setitem(sys.modules, _STUDY, types.SimpleNamespace(main=main_function))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"out": Path("demo"), "quick": False}),
        (["--out", "elsewhere", "--quick"], {"out": Path("elsewhere"), "quick": True}),
    ],
)
def test_the_study_is_called(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, options: list[str], expected: dict[str, Any]
) -> None:
    calls: list[dict[str, Any]] = []
    put_study(monkeypatch, lambda **arguments: calls.append(arguments))
    assert runner.invoke(main, ["demo", *options]).exit_code == 0
    assert calls == [expected]


def test_a_full_disk_is_a_sentence(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def study(out: Path, quick: bool) -> None:
        raise OSError(28, "No space left on device")

    put_study(monkeypatch, study)
    result = runner.invoke(main, ["demo"])
    assert (result.exit_code, result.stderr) == (1, "Error: No space left on device.\n")
