"""`landscape report` writes the page and says where."""

from __future__ import annotations

from landscape.cli import main


def test_the_page_is_written(runner, run_file, tmp_path):
    out = tmp_path / "report.html"
    result = runner.invoke(main, ["report", str(run_file), str(run_file), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(out)
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_what_does_not_fit_is_a_sentence(runner, run_file, tmp_path):
    missing = runner.invoke(main, ["report", str(tmp_path / "none.h5"), "--out", str(tmp_path / "r.html")])
    assert (missing.exit_code, missing.output.count("There is no file")) == (1, 1)
    wrong = runner.invoke(main, ["report", str(run_file), "--out", str(tmp_path / "r.pdf")])
    assert wrong.exit_code == 2
    assert "must end in .html" in wrong.output
