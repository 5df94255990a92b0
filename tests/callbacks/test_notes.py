"""Lines at the start and at the end, and the line that waits."""

from __future__ import annotations

import io
import math
import sys
from types import SimpleNamespace

import pytest
from pytorch_lightning.callbacks import RichProgressBar

from landscape.callbacks._notes import duration, end_line, start_line
from landscape.callbacks._pot import Member
from landscape.callbacks._progress import waiting


def member(name: str = "sharpness", **given) -> Member:
    return Member(name, [{}], lambda form, examples: 2.5, 1024, **{"events": 40, "cadence": (1, None, "")} | given)


def test_the_line_at_the_start() -> None:
    end = member("mode_connectivity", events=1, cadence=None)
    assert start_line([(0.1, member()), (0.1, end)]) == (
        "Landscape measures sharpness (40 events, 2.5 s each), mode_connectivity (when the fit ends, 2.5 s each); as "
        "asked, 2 min in all. Kept to 10 % of the training's time, first and last event aside."
    )
    assert start_line([(None, member(events=math.inf))]) == "Landscape measures sharpness (at its cadence, 2.5 s each)."
    assert start_line([]) == ""


def test_the_line_at_the_end() -> None:
    found = end_line([(0.1, member(measured=7, spent=17.5))], 20.0, 200.0)
    assert found == "Landscape measured sharpness 7 of 40 times (18 s): 20 s in all, 10 % of 3 min of training."
    assert end_line([], 0.0, 1.0) == ""


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.0123, 4.2, 59, 100, 4000, 9000)] == [
        "0.012 s",
        "4.2 s",
        "59 s",
        "2 min",
        "67 min",
        "2.5 h",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_a_line_waits_on_terminals_only(monkeypatch, terminal) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    trainer = SimpleNamespace(progress_bar_callback=SimpleNamespace(), is_global_zero=True)
    with waiting(trainer, "sharpness", 12.0):
        shown = stream.getvalue()
    assert ("measuring sharpness, about 12 s" in shown) == terminal
    assert stream.getvalue().rstrip("\r").endswith(" ") == terminal  # the line is wiped


def test_rich_bars_show_a_task_for_the_time() -> None:
    bar = RichProgressBar()
    state = SimpleNamespace(fn="fit")
    trainer = SimpleNamespace(progress_bar_callback=bar, is_global_zero=True, state=state, sanity_checking=True)
    bar._trainer = trainer
    bar._init_progress(trainer)
    try:
        with waiting(trainer, "sharpness", math.nan):
            assert [task.description for task in bar.progress.tasks] == ["measuring sharpness"]
        assert not bar.progress.tasks
    finally:
        bar._stop_progress()


def test_a_broken_bar_breaks_no_training() -> None:
    def fail(*given, **more):
        raise RuntimeError

    bar = SimpleNamespace(progress=SimpleNamespace(add_task=fail, remove_task=fail))
    with waiting(SimpleNamespace(progress_bar_callback=bar, is_global_zero=True), "sharpness", 1.0):
        pass
