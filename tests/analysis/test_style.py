"""Pictures leave matplotlib as it was, and are shown in notebooks, every one of them."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.figure
import nbformat
import pytest
from nbclient import NotebookClient

from landscape.analysis._style import literal, style
from landscape.record import GroupSchema, Recorder, Variable


def test_settings_come_back_also_after_an_error():
    def draw():
        with style():
            assert mpl.rcParams["axes.spines.top"] is False
            raise RuntimeError

    before = dict(mpl.rcParams)
    with pytest.raises(RuntimeError):
        draw()
    assert dict(mpl.rcParams) == before


def test_what_a_notebook_sets_at_its_first_figure_stays():
    before = mpl.is_interactive()
    try:
        with style():
            mpl.interactive(not before)
        assert mpl.is_interactive() is not before
    finally:
        mpl.interactive(before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the kernel's transport
def test_every_picture_of_a_notebook_is_shown(tmp_path: Path):
    recorder = Recorder.create(tmp_path / "run.h5", {"model": "Net"})
    recorder.declare(GroupSchema("sharpness", "how sharp", [Variable("average_case")]))
    for step in (0, 5):
        recorder.append("sharpness", {"step": step, "train_loss": 0.1, "average_case": 0.1 + step})
    recorder.close()
    cells = [
        "from landscape.analysis import plot_sharpness, write_report",
        "write_report('run.h5', 'report.html');",
        "plot_sharpness('run.h5');",
        "plot_sharpness('run.h5');",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [sum("image/png" in output.get("data", {}) for output in cell.outputs) for cell in notebook.cells]
    assert shown == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "text", ["$x^2$", "costs $5", "_hidden", "line\nline", "bell\x07", "turned \u202e round", "$" * 3000]
)
def test_texts_are_drawn_letter_by_letter(text: str):
    figure = mpl.figure.Figure()
    axes = figure.add_subplot()
    axes.plot([0, 1], label=literal(text))
    axes.set_title(literal(text))
    legend = axes.legend()
    figure.canvas.draw()
    (label,) = legend.get_texts()  # a leading underscore does not hide it
    shown = label.get_text()
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert "$" not in shown.replace(r"\$", "")
    assert len(shown) < 1000
