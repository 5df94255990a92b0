"""Rate-distortion curves: points and lines on the axes, what is left out, the axis of bits per parameter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from landscape import FileError
from landscape.analysis import plot_rate_distortion
from landscape.record import Coordinate, GroupSchema, MemoryRecorder, Run, Variable

NAN = float("nan")
BITS, RISE = (4000.0, 2000.0, 1000.0), (0.009, 0.08, 0.9)


def record(*rows: dict[str, Any], group: str = "compressibility", parameters: int | None = 500) -> Run:
    """A run with a row for each dict: bits, loss_rise, reached, train_loss, status."""
    attributes = {"hyper_parameters": {"width": 8}} | ({} if parameters is None else {"n_parameters": parameters})
    recorder = MemoryRecorder(attributes)
    along = ("tolerance",)
    given = {name for row in rows for name in row}
    names = ("bits", "ideal_bits", "loss_rise", *({"relative_step", "loss_rise_stderr_sample"} & given))
    variables = [*(Variable(name, along) for name in names), Variable("reached", along, "i1")]
    variables += [Variable(name) for name in sorted(given) if name.startswith("law_")]
    # Tolerances may be recorded in any order.
    recorder.declare(GroupSchema(group, "bits", variables, [Coordinate("tolerance", [0.1, 0.01, 1.0])]))
    shuffled = [1, 0, 2]
    for index, row in enumerate(rows or ({},)):
        values = {"bits": BITS, "loss_rise": RISE, "reached": (1, 1, 1), "train_loss": 0.5, "status": 0, **row}
        values["ideal_bits"] = [0.99 * bits for bits in values["bits"]]
        values |= {name: np.asarray(values[name])[shuffled] for name in (*names, "reached")}
        recorder.append(group, {"step": 10 * (index + 1), "reason": "", **values})
    return recorder.run()


def lines(ax: Any, style: str) -> list[np.ndarray]:
    return [
        np.asarray(line.get_xydata()) for line in ax.lines if line.get_linestyle() == style and len(line.get_xdata())
    ]


def caption(ax: Any) -> str:
    return ax.get_title(loc="left").replace("\n", " ")


def test_points_are_streams_and_lines_their_ideal_length() -> None:
    ax = plot_rate_distortion(record())
    (points,), (ideal,) = lines(ax, "None"), lines(ax, "-")
    assert points == pytest.approx(np.column_stack([[0.01, 0.1, 1.0], BITS]))
    assert ideal == pytest.approx(np.column_stack([[0.01, 0.1, 1.0], 0.99 * np.array(BITS)]))
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "allowed rise of the training loss (nats)"
    assert ax.get_ylabel() == "code length (bits)"
    assert caption(ax) == "Points: streams that were written and decoded. Lines: their ideal length."
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["<memory>", "ideal length"]


def test_the_rise_that_was_realised() -> None:
    ax = plot_rate_distortion(record({"loss_rise": (-0.001, 0.08, 0.9)}), x="loss_rise")
    (points,) = lines(ax, "None")
    assert points == pytest.approx(np.column_stack([RISE[1:], BITS[1:]]))
    assert "1 of 3 points left out: the decoded weights raise the loss by nothing or less." in caption(ax)
    assert not ax.collections


def test_the_rise_has_bars_of_its_error_over_examples() -> None:
    run = record({"loss_rise_stderr_sample": (0.003, 0.02, 1.0)})
    (bars,) = plot_rate_distortion(run, x="loss_rise").collections
    ends = np.array([segment[:, 0] for segment in bars.get_segments()])
    assert ends == pytest.approx(np.array([[0.006, 0.012], [0.06, 0.1], [0.09, 1.9]]))
    assert not plot_rate_distortion(run).collections  # tolerances are exact


def test_what_was_not_reached_is_left_out_and_counted() -> None:
    flagged = {"bits": (9e9, 2000.0, 1000.0), "reached": (0, 1, 1)}  # a length of a code that broke the tolerance
    ax = plot_rate_distortion(record(flagged))
    (points,) = lines(ax, "None")
    assert points == pytest.approx(np.array([[0.1, 2000.0], [1.0, 1000.0]]))
    assert "1 of 3 tolerances not reached by any code" in caption(ax)
    ax = plot_rate_distortion(record({"bits": (NAN, NAN, 1000.0), "reached": (0, 0, 1)}))
    assert lines(ax, "None")[0].tolist() == [[1.0, 1000.0]]
    assert "2 of 3 tolerances not reached" in caption(ax)
    ax = plot_rate_distortion(record({"bits": (NAN,) * 3, "reached": (0, 0, 0)}))
    assert lines(ax, "None") == []
    assert "3 of 3 tolerances not reached" in caption(ax)


def test_bits_per_parameter_where_counts_are_equal() -> None:
    def right(*runs: Run) -> list[Any]:
        ax = plot_rate_distortion(runs)
        ax.figure.draw_without_rendering()
        return ax.child_axes

    (axis,) = right(record(), record())
    assert axis.get_ylabel() == "bits per parameter (500 parameters)"
    ax = plot_rate_distortion(record())
    ax.set_ylim(500, 5000)
    ax.figure.draw_without_rendering()
    assert ax.child_axes[0].get_ylim() == pytest.approx((1.0, 10.0))
    assert right(record(), record(parameters=600)) == []
    assert right(record(parameters=None)) == []


def test_checkpoints_of_a_training() -> None:
    run = record({"bits": (8000.0, 4000.0, 2000.0)}, {"status": 1, "reason": "NaN"}, {})
    ax = plot_rate_distortion(run, steps="all")
    assert [points[0, 1] for points in lines(ax, "None")] == [8000.0, 4000.0]
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["<memory>, step 10", "<memory>, step 30", "ideal length"]
    assert [points[0, 1] for points in lines(plot_rate_distortion(run, steps=[10]), "None")] == [8000.0]
    assert [points[0, 1] for points in lines(plot_rate_distortion(run), "None")] == [4000.0]
    with pytest.raises(FileError, match="no code lengths at step 20; it has 10, 30"):
        plot_rate_distortion(run, steps=[20])


def test_runs_have_names_and_their_losses_are_compared() -> None:
    ax = plot_rate_distortion([record({"train_loss": 0.1}), record({"train_loss": 0.5})], label="width")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["8", "ideal length"]
    assert ax.get_legend().get_title().get_text() == "width"
    assert len({line.get_color() for line in ax.lines if line.get_linestyle() == "None"}) == 1
    losses = iter("ab")
    ax = plot_rate_distortion([record({"train_loss": 0.1}), record({"train_loss": 0.5})], label=lambda _: next(losses))
    assert len({line.get_color() for line in ax.lines if line.get_linestyle() == "None"}) == 2
    assert "NOT at matched loss: training losses 0.1 to 0.5" in caption(ax)
    ax = plot_rate_distortion(record(), label=lambda run: run.attributes["n_parameters"])
    assert ax.get_legend().get_texts()[0].get_text() == "500"
    with pytest.raises(FileError, match="'widht'; did you mean width"):
        plot_rate_distortion(record(), label="widht")


def test_a_name_that_begins_with_an_underscore_or_holds_mathematics_is_in_the_legend() -> None:
    names = iter(["_under $a_1$", "$k$"])
    ax = plot_rate_distortion([record(), record()], label=lambda _: next(names))
    shown = [text.get_text() for text in ax.get_legend().get_texts()]
    assert shown == ["\N{HAIR SPACE}_under \\$a_1\\$", "\\$k\\$", "ideal length"]


def test_the_law_stands_at_the_rise_that_it_foretells() -> None:
    law = {"relative_step": (0.1, 0.4, 1.6), "law_curvature": 12.0, "law_curvature_stderr": 1.2}
    ax = plot_rate_distortion(record(law), law=True)
    (line,) = lines(ax, ":")
    rises = 12 * np.array([0.1, 0.4, 1.6]) ** 2 / 24
    assert line == pytest.approx(np.column_stack([rises, 0.99 * np.array(BITS)]))
    (bars,) = ax.containers
    widths = [np.ptp(np.asarray(segment)[:, 0]) for segment in bars.lines[2][0].get_segments()]
    assert widths == pytest.approx(2 * 0.1 * rises)
    assert ax.get_legend().get_texts()[-1].get_text() == "law, κ step²/24"
    assert "foretells" in caption(ax)
    assert lines(plot_rate_distortion(record(law)), ":") == []
    with pytest.raises(FileError, match="no quantisation law .*law_curvature and relative_step"):
        plot_rate_distortion(record(), law=True)


def test_a_curve_for_each_family() -> None:
    recorder = MemoryRecorder({"n_parameters": 500})
    along = ("family", "tolerance")
    variables = [Variable(name, along) for name in ("bits", "ideal_bits", "loss_rise")]
    coordinates = [Coordinate("family", ("grid", "codebook")), Coordinate("tolerance", [0.01, 0.1])]
    recorder.declare(GroupSchema("compressibility", "bits", variables, coordinates))
    bits = np.array([[400.0, 200.0], [300.0, 250.0]])
    recorder.append("compressibility", {"step": 1, "bits": bits, "ideal_bits": bits - 8, "loss_rise": bits / 1e4})
    ax = plot_rate_distortion(recorder.run())
    assert [points[:, 1].tolist() for points in lines(ax, "None")] == bits.tolist()
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["<memory>, grid", "<memory>, codebook", "ideal length"]


def test_too_many_curves_are_named_by_run_and_by_family() -> None:
    along, names = ("family", "tolerance"), ("grid", "codebook", "pruned", "svd", "low-rank")
    runs = []
    for width in (8, 16, 32):
        recorder = MemoryRecorder({"hyper_parameters": {"width": width}})
        variables = [Variable(name, along) for name in ("bits", "ideal_bits", "loss_rise")]
        coordinates = [Coordinate("family", names), Coordinate("tolerance", [0.01, 0.1])]
        recorder.declare(GroupSchema("compressibility", "bits", variables, coordinates))
        bits = np.outer(np.arange(1.0, 6.0), [2.0, 1.0]) * width
        recorder.append("compressibility", {"step": 1, "bits": bits, "ideal_bits": bits, "loss_rise": bits / 1e4})
        runs.append(recorder.run())
    ax = plot_rate_distortion(runs, label="width")
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["8", "16", "32", *names, "ideal length"]
    drawn = [line for line in ax.get_lines() if len(line.get_xdata()) and line.get_linestyle() == "None"]
    looks = [(line.get_color(), line.get_marker()) for line in drawn]
    assert len(set(looks)) == len(looks) == 15
    entries = ax.get_legend().legend_handles
    assert [line.get_color() for line in drawn[::5]] == [entry.get_color() for entry in entries[:3]]
    assert [line.get_marker() for line in drawn[:5]] == [entry.get_marker() for entry in entries[3:8]]


def test_the_group_of_averaged_weights_stands_in() -> None:
    swa = record(group="compressibility_swa")
    assert lines(plot_rate_distortion(swa), "None")[0][0, 1] == 4000.0
    with pytest.raises(FileError, match="no group 'sharpness'"):
        plot_rate_distortion(swa, group="sharpness")


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="expected 'tolerance' or 'loss_rise'"):
        plot_rate_distortion(record(), x="rise")
    with pytest.raises(ValueError, match="expected 'all', or steps"):
        plot_rate_distortion(record(), steps="every")
    with pytest.raises(ValueError, match="give paths or open runs"):
        plot_rate_distortion(pd.DataFrame({"run": ["a"], "step": [1]}))
    with pytest.raises(FileError, match="no row of 'compressibility' that succeeded"):
        plot_rate_distortion(record({"status": 1, "reason": "NaN"}))
