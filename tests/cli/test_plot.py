"""`landscape plot`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from matplotlib import pyplot as plt

from landscape.bounds import countable_bound
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


@pytest.mark.parametrize(
    ("kind", "choices", "said"),
    [
        ("rate-distortion", ["--group", "batch_size"], "streams that were written and decoded"),
        ("rank-correlations", ["--y", "bits[tolerance=0.03]", "--matched-loss", "0.1"], "Ranked against"),
        ("flatness-compressibility", ["--isolines"], "the bound (kl, n"),
    ],
)
def test_kinds_of_several_runs(
    runner: CliRunner, make_run: Callable[..., Path], tmp_path: Path, kind: str, choices: list[str], said: str
) -> None:
    runs = [str(make_run(sharpness)) for sharpness in (0.1, 0.2, 0.4)]
    out = tmp_path / "figure.svg"
    result = runner.invoke(main, ["plot", *runs, "--kind", kind, "--out", str(out), *choices])
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{out}\n", "")
    assert said in out.read_text()
    assert plt.get_fignums() == []


def test_certificates_are_drawn_together(runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from landscape.analysis import _decomposition

    setting = {"error": 0.1, "n": 1000, "bits": 300.0, "delta": 0.05}
    claim = SimpleNamespace(**setting, method="kl", bound=countable_bound(**setting))
    monkeypatch.setattr(_decomposition, "read_certificate", lambda path: claim)
    out = tmp_path / "figure.svg"
    result = runner.invoke(main, ["plot", "one.lsc", "two.lsc", "--kind", "bound", "--out", str(out)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert ">two<" in out.read_text() or "<!-- two -->" in out.read_text()


def test_a_run_is_no_certificate(runner: CliRunner, run_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "figure.png"
    result = runner.invoke(main, ["plot", str(run_file), "--kind", "bound", "--out", str(out)])
    assert (result.exit_code, out.exists()) == (1, False)
    assert result.stderr.startswith(f"Error: {run_file}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["spectrum", "connectivity", "swa", "learning-coefficient"])
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
        (["--out", "a.png", "--kind", "learning-coefficient", "b.h5"], "draws one run, and 2 were given"),
        (["--out", "a.png", "--kind", "bound", "--y", "bits"], "and rank-correlations, not to --kind bound"),
        (["--out", "a.png", "--kind", "rate-distortion", "--x", "trace"], "is tolerance or loss_rise, not trace"),
        (["--out", "a.png", "--isolines", "--y", "average_case"], "--isolines needs --y of bits that decode"),
        (["--out", "a.html", "--kind", "bound"], "only --kind surface makes an interactive page"),
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
