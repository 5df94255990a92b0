"""Sharpness, connectivity and SWA: the lines on their panels, and what they say when something is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt

from landscape import FileError
from landscape._layout import ParameterLayout
from landscape.analysis import plot_connectivity, plot_sharpness, plot_spectrum, plot_swa
from landscape.record import Coordinate, GroupSchema, MemoryRecorder, Variable

T = np.linspace(0.0, 1.0, 5)
HUMP = 4 * T * (1 - T)
NAN = np.nan


def line(ax: Any, start: str) -> Any:
    (found,) = (line for line in ax.lines if line.get_label().startswith(start))
    return found


def legend(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_sharpness_over_training(full_run: Path) -> None:
    upper, lower = plot_sharpness(full_run)
    average = line(upper, "adaptive average-case sharpness, ρ = 0.1")
    assert average.get_xdata().tolist() == [0, 10, 20]
    assert average.get_ydata() == pytest.approx([0.4, NAN, 0.1], nan_ok=True)
    assert line(upper, "adaptive worst-case").get_ydata() == pytest.approx([3.2, NAN, 0.8], nan_ok=True)
    assert "SAM sharpness (not invariant), ρ = 0.05" in legend(upper)
    assert line(upper, "measurement failed").get_xdata().tolist() == [10]
    assert line(lower, "training loss").get_ydata() == pytest.approx([1.0, 0.3, 0.1])
    assert line(lower, "held-out loss").get_ydata() == pytest.approx([1.1, 0.4, 0.2])
    assert (upper.get_yscale(), lower.get_yscale()) == ("log", "log")
    assert (upper.get_ylabel(), lower.get_ylabel()) == ("sharpness (rise in loss)", "loss")


def test_sharpness_bands_are_one_standard_error(make_run: Any) -> None:
    upper, _ = plot_sharpness(make_run())
    band = upper.collections[0].get_paths()[0].vertices
    at_first = band[band[:, 0] == 0.0][:, 1]
    assert (at_first.min(), at_first.max()) == pytest.approx((0.39, 0.41))


def test_negative_sharpness_has_a_linear_axis(make_run: Any) -> None:
    upper, _ = plot_sharpness(make_run(sharpness=(0.4, -0.1, 0.001)))
    assert upper.get_yscale() == "linear"


def test_every_rise_of_the_loss_and_every_rung_of_a_ladder_is_a_line() -> None:
    measures = [
        {"measure": "worst_case", "name": "worst_case_linf", "rho": 0.01},
        {"measure": "average_case", "name": "average_case", "rho": [0.1, 0.2]},
    ]
    rho = Coordinate("rho_average_case", [0.1, 0.2])
    variables = [Variable("worst_case_linf"), Variable("average_case", ("rho_average_case",)), Variable("trace_chc")]
    recorder = MemoryRecorder({}, ParameterLayout(("weight",), ((4,),)))
    settings = {"rho_average": 0.5, "measures": measures}
    recorder.declare(GroupSchema("sharpness", "", variables, [rho], {"settings": settings}))
    for step in (0, 1):
        row = {"worst_case_linf": 3.0 + step, "average_case": [1.0, 2.0], "trace_chc": 9.0}
        recorder.append("sharpness", {"step": step, "train_loss": 1.0, "held_out_loss": 1.0} | row)
    upper, _ = plot_sharpness(recorder.run())
    assert legend(upper) == [
        "adaptive worst-case ℓ∞ sharpness, ρ = 0.01",
        "adaptive average-case sharpness at ρ = 0.1",
        "adaptive average-case sharpness at ρ = 0.2",
    ]
    assert line(upper, "adaptive worst-case").get_ydata().tolist() == [3.0, 4.0]
    assert len({one.get_color() for one in upper.get_lines()[:3]}) == 3


def test_paths_and_barriers(full_run: Path) -> None:
    loss, error = plot_connectivity(full_run)
    assert line(loss, "linear, training: 2").get_ydata() == pytest.approx(2 * HUMP)
    assert line(loss, "Bézier, held-out: 0.1").get_ydata() == pytest.approx(0.5 + 0.1 * HUMP)
    assert line(error, "linear, held-out: 0.6").get_ydata() == pytest.approx(0.5 + 0.6 * HUMP)
    assert line(loss, "linear, training").get_xdata() == pytest.approx(T)
    assert "barrier 2" in [text.get_text() for text in loss.texts]
    assert "barrier 0.6" in [text.get_text() for text in error.texts]
    arrow = next(text for text in loss.texts if not text.get_text())
    assert (arrow.xy, arrow.xyann) == (pytest.approx((0.5, 2.0)), pytest.approx((0.5, 0.0)))
    assert loss.get_legend().get_title().get_text() == "barrier above the line between the ends"


def recorded_paths(row: dict[str, Any]) -> Any:
    """A run with one row of paths; `row` gives values by the split and kind that they are of."""
    splits = [f"{split}_{kind}" for split in ("train", "held_out") for kind in ("loss", "error")]
    variables = [Variable(f"curve_{name}", ("path", "t")) for name in splits]
    variables += [
        Variable(f"barrier_{name}{end}", ("path", "definition")) for name in splits for end in ("", "_stderr")
    ]
    definitions = ("interpolated", "mean_of_ends", "worse_end")
    axes = [Coordinate("path", ("linear", "bezier")), Coordinate("t", T), Coordinate("definition", definitions)]
    recorder = MemoryRecorder({}, None)
    recorder.declare(GroupSchema("mode_connectivity", "paths", variables, axes))
    found = {f"curve_{name}": [2 * HUMP, 0.1 * HUMP] for name in splits}
    found |= {f"barrier_{name}": [[2.0] * 3, [0.1] * 3] for name in splits}
    found |= {f"barrier_{name}_stderr": [[0.125] * 3, [0.0] * 3] for name in splits}
    recorder.append("mode_connectivity", {"step": 1, "train_loss": 0.0} | found | row)
    return recorder.run()


def test_points_that_were_left_out_do_not_break_the_path() -> None:
    curves = np.stack([np.where(np.isin(T, (0.25, 0.75)), NAN, height * HUMP) for height in (2.0, 0.1)])
    loss, _ = plot_connectivity(recorded_paths({"curve_train_loss": curves}))
    drawn = line(loss, "linear, training")
    assert drawn.get_xdata().tolist() == [0.0, 0.5, 1.0]
    assert drawn.get_ydata().tolist() == [0.0, 2.0, 0.0]
    assert drawn.get_marker() == "."
    assert "barrier 2" in [text.get_text() for text in loss.texts]
    assert line(loss, "linear, held-out").get_marker() in ("", "None")


def test_barriers_stand_with_their_standard_errors() -> None:
    loss, _ = plot_connectivity(recorded_paths({}))
    assert line(loss, "linear, training: 2.00 ± 0.12")
    assert line(loss, "Bézier, training: 0.1")  # a path whose top is one of its ends
    assert "standard error" in loss.get_legend().get_title().get_text()
    (bar,) = loss.containers
    (low, high) = bar.lines[2][0].get_segments()[0]
    np.testing.assert_allclose([low, high], [(0.5, 1.875), (0.5, 2.125)])


def test_another_step_and_definition(full_run: Path) -> None:
    loss, _ = plot_connectivity(full_run, step=0, definition="worse_end")
    assert loss.get_legend().get_title().get_text() == "barrier above the worse end"
    with pytest.raises(FileError, match="no 'mode_connectivity' at step 10; it has 0, 20"):
        plot_connectivity(full_run, step=10)
    with pytest.raises(ValueError, match="expected one of interpolated"):
        plot_connectivity(full_run, definition="max")


def test_a_connectivity_that_failed_is_told(make_run: Any) -> None:
    run = make_run(groups=("mode_connectivity",), sharpness=(1.0,), loss=(1.0,), error=(1.0,), failed=0)
    with pytest.raises(FileError, match="no row of 'mode_connectivity' that succeeded"):
        plot_connectivity(run)


def test_average_beside_iterate(full_run: Path) -> None:
    loss, error = plot_swa(full_run)
    assert line(loss, "iterate, training").get_ydata() == pytest.approx([1.0, 0.3, 0.1])
    assert line(loss, "SWA, training").get_ydata() == pytest.approx([0.5, NAN, 0.05], nan_ok=True)
    assert line(loss, "SWA, held-out").get_ydata() == pytest.approx([1.0, NAN, 0.1], nan_ok=True)
    assert line(error, "iterate, held-out").get_ydata() == pytest.approx([0.5, 0.3, 0.2])
    assert (loss.get_ylabel(), error.get_ylabel()) == ("loss", "error (fraction of labels)")
    assert legend(loss)[:2] == ["iterate, training", "iterate, held-out"]


def test_a_loss_without_error_says_so(make_run: Any) -> None:
    loss, error = plot_swa(make_run(groups=("swa_trajectory",), error=(NAN, NAN, NAN)))
    assert [text.get_text() for text in error.texts] == ["no error recorded"]
    assert not error.lines
    assert len(loss.lines) == 4


@pytest.mark.parametrize(
    ("plot", "group"),
    [
        (plot_spectrum, "hessian_spectrum"),
        (plot_sharpness, "sharpness"),
        (plot_connectivity, "mode_connectivity"),
        (plot_swa, "swa_trajectory"),
    ],
)
def test_a_missing_group_is_the_readers_sentence(make_run: Any, plot: Callable[..., Any], group: str) -> None:
    run = make_run(groups=("compressibility",))
    with pytest.raises(FileError, match=f"has no group '{group}'; it has compressibility"):
        plot(run)


@pytest.mark.parametrize("plot", [plot_sharpness, plot_connectivity, plot_swa])
def test_given_axes_are_drawn_on(full_run: Path, plot: Callable[..., Any]) -> None:
    _, axes = plt.subplots(2)
    assert list(plot(full_run, ax=axes)) == list(axes)
    with pytest.raises(ValueError, match="has 2 panels, and ax holds 1 axes"):
        plot(full_run, ax=axes[0])
