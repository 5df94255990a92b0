"""`landscape plot`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from matplotlib import pyplot as plt

from landscape.cli import main


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_file_is_written_and_named(
    runner: CliRunner, run_file: Path, tmp_path: Path, suffix: str, start: bytes
) -> None:
    out = tmp_path / f"figure.{suffix}"
    result = runner.invoke(main, ["plot", str(run_file), "--out", str(out)])
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{out}\n", "")
    assert out.read_bytes().startswith(start)
    assert plt.get_fignums() == []


def test_choices_reach_the_plot(runner: CliRunner, make_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [str(make_run(sharpness)) for sharpness in (0.1, 0.2, 0.4)]
    out = tmp_path / "figure.svg"
    choices = ["--x", "bits[tolerance=0.03]", "--y", "average_case", "--color", "train_loss", "--points", "trajectory"]
    result = runner.invoke(
        main, ["plot", *runs, "-o", str(out), *choices, "--matched-loss", "0.1", "--group", "batch_size", "--dpi", "80"]
    )
    assert (result.exit_code, result.stderr) == (0, "")
    comments = out.read_text()
    assert "code length at a loss rise ≤ 0.03 (bits)" in comments  # the SVG writer keeps texts as comments
    assert "nearest to 0.1" in comments
    assert "batch size" in comments


@pytest.mark.parametrize("kind", ["sharpness"])
def test_another_kind(runner: CliRunner, run_file: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "figure.png"
    result = runner.invoke(main, ["plot", str(run_file), "--kind", kind, "--out", str(out)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert out.stat().st_size > 10_000


@pytest.mark.parametrize("kind", ["spectrum", "connectivity", "swa"])
def test_a_missing_group_is_a_sentence(runner: CliRunner, run_file: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "figure.png"
    result = runner.invoke(main, ["plot", str(run_file), "--kind", kind, "--out", str(out)])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {run_file} has no group")
    assert not out.exists()


def test_warnings_are_sentences_on_stderr(runner: CliRunner, make_run: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "figure.png"
    runs = [str(make_run(loss=loss)) for loss in (0.1, 1.0)]
    result = runner.invoke(main, ["plot", *runs, "--out", str(out)])
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    assert result.stderr.startswith("Warning: the runs are not at matched loss")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--out", "figure.gif"], "must end in .png, .svg or .pdf"),
        (["--out", "figure"], "must end in .png, .svg or .pdf"),
        ([], "Missing option '--out'"),
        (["--out", "a.png", "--matched-loss", "nan"], "nan is no training loss"),
        (["--out", "a.png", "--kind", "pie"], "'pie' is not one of"),
        (["--out", "a.png", "--kind", "swa", "--matched-loss", "1"], "--matched-loss belongs to --kind"),
        (["--out", "a.png", "--kind", "swa", "second.h5"], "--kind swa draws one run, and 2 were given"),
    ],
)
def test_wrong_usage_exits_with_2(runner: CliRunner, run_file: Path, options: list[str], sentence: str) -> None:
    result = runner.invoke(main, ["plot", str(run_file), *options])
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_an_unknown_column_is_a_sentence(runner: CliRunner, run_file: Path, tmp_path: Path) -> None:
    result = runner.invoke(main, ["plot", str(run_file), "--out", str(tmp_path / "a.png"), "--x", "average"])
    assert result.exit_code == 1
    assert "did you mean average_case" in result.stderr


def test_a_place_that_cannot_be_written_is_a_sentence(runner: CliRunner, run_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "nowhere" / "a.png"
    result = runner.invoke(main, ["plot", str(run_file), "--out", str(out)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: {out}: No such file or directory.\n"
    assert plt.get_fignums() == []
