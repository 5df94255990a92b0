"""The report: one page that holds what the run files hold, and needs nothing else."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from landscape import FileError
from landscape.analysis import summarize, write_report
from landscape.record import GroupSchema, Recorder, Variable


class Page(HTMLParser):
    """Collects rows of cells, pictures and links; fails on a tag that is not closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.images: list[dict] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.images.append(attributes)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("img", "meta"):
            self.open.append(tag)
        assert not {"href"} & set(attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def make(path, sharpness: float, reason: str = ""):
    recorder = Recorder.create(path, {"model": "Net<script>", "hyper_parameters": {"lr": 0.1}})
    variables = [Variable("average_case"), Variable("average_case_stderr")]
    recorder.declare(GroupSchema("sharpness", "how sharp", variables))
    for step in (0, 5):
        measured = {"average_case": sharpness * (1 + step), "average_case_stderr": 0.01}
        recorder.append("sharpness", {"step": step, "train_loss": 0.1} | measured)
    if reason:
        recorder.append("sharpness", {"step": 9, "status": 1, "reason": reason})
    recorder.close()
    return path


def test_a_run_with_its_values_pictures_and_failures(tmp_path):
    run = make(tmp_path / "a.h5", 0.25, "the loss is <NaN> & gone")
    out = write_report(run, tmp_path / "report.html")
    page = Page(out.read_text(encoding="utf-8"))
    label = next(value["label"] for value in summarize(run)["values"] if value["name"] == "average_case")
    assert [label, "0.25 ± 0.01", "0", "1.5 ± 0.01", "5"] in page.rows
    assert ["model", "Net<script>"] in page.rows
    assert ["hyper parameters", "lr 0.1"] in page.rows
    assert ["sharpness", "3", "1", "0 to 9"] in [row[:4] for row in page.rows]
    assert "the loss is <NaN> & gone" in page.text
    assert [image["alt"] for image in page.images] == ["Sharpness"]
    assert all(image["src"].startswith("data:image/png;base64,iVBOR") for image in page.images)
    assert not re.search(r"https?://|<script", out.read_text(encoding="utf-8"))


def test_several_runs_are_compared_and_what_cannot_be_drawn_says_why(tmp_path):
    runs = [make(tmp_path / f"{name}.h5", value) for name, value in (("a", 0.25), ("b", 0.5))]
    page = Page(write_report(runs, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.rows[0] == ["last value", "a.h5", "b.h5"]
    assert ["1.5 ± 0.01", "3 ± 0.01"] in [row[1:] for row in page.rows]
    assert "Not drawn: " in page.text  # nobody recorded bits
    assert [image["alt"] for image in page.images] == ["Sharpness", "Sharpness"]


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileError, match="There is no file"):
        write_report(tmp_path / "none.h5", tmp_path / "report.html")
    with pytest.raises(ValueError, match="no run is given"):
        write_report([], tmp_path / "report.html")
