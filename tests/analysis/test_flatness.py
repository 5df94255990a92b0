"""The flatness-compressibility plot: the points on the axes, the caption, and what it warns of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection, PathCollection

from landscape import FileError, open_run
from landscape.analysis import kendall, plot_flatness_compressibility, rank_correlations
from landscape.analysis._scatter import COLOR_MAP

SHARPNESS = [0.01 * 2**index for index in range(6)]
BITS = [1000.0, 1100.0, 1200.0, 1300.0, 1500.0, 1400.0]


def points(ax: Any) -> np.ndarray:
    """The points that stand for runs, shape (n, 2), ordered by x."""
    found = [c.get_offsets() for c in ax.collections if isinstance(c, PathCollection) and c.zorder == 4]
    offsets = np.concatenate([np.asarray(offset) for offset in found])
    return offsets[np.argsort(offsets[:, 0])]


def caption(ax: Any) -> str:
    return ax.get_title(loc="left").replace("\n", " ")


def test_final_points_and_caption(grid: list[Path]) -> None:
    ax = plot_flatness_compressibility(grid)
    assert points(ax) == pytest.approx(np.column_stack([SHARPNESS, BITS]))
    expected = kendall(SHARPNESS, BITS)
    assert expected.tau == pytest.approx(13 / 15)  # one of 15 pairs is discordant
    assert caption(ax).startswith(
        f"Kendall's {expected}. Each run at its last row with both; training losses 0.1 to 0.15."
    )
    assert ax.get_xlabel() == "adaptive average-case sharpness (rise in loss)"
    assert ax.get_ylabel() == "code length at a loss rise ≤ 0.03 (bits)"
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")


def test_of_several_families_the_default_one_is_meant_where_none_is_named(grid: list[Path]) -> None:
    names = {f"bits[tolerance={e}]": f"bits[uniform-tensor,tolerance={e}]" for e in (0.01, 0.03)}
    tables = [open_run(path).table().rename(columns=names).assign(run=str(path)) for path in grid]
    table = pd.concat(tables, ignore_index=True).assign(**{"bits[svd,tolerance=0.03]": 7.0})
    assert points(plot_flatness_compressibility(table)) == pytest.approx(np.column_stack([SHARPNESS, BITS]))
    ax = plot_flatness_compressibility(table, y="bits[uniform-tensor,tolerance=0.03]")
    assert points(ax) == pytest.approx(np.column_stack([SHARPNESS, BITS]))
    assert ax.get_ylabel() == "code length at a loss rise ≤ 0.03,\nuniform-tensor (bits)"
    pd.testing.assert_frame_equal(
        rank_correlations(table),
        rank_correlations(table.rename(columns=lambda c: {v: k for k, v in names.items()}.get(c, c))),
    )


def test_colours_and_their_bar(grid: list[Path]) -> None:
    ax = plot_flatness_compressibility(grid)
    (cloud,) = (c for c in ax.collections if isinstance(c, PathCollection))
    assert np.sort(np.asarray(cloud.get_array())) == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
    assert ax.figure.axes[1].get_ylabel() == "held-out error (fraction of labels)"


def test_error_bars_are_one_standard_error(grid: list[Path]) -> None:
    ax = plot_flatness_compressibility(grid)
    bars = [c for c in ax.collections if isinstance(c, LineCollection)]
    lengths = [np.ptp(np.asarray(segment)[:, 0]) for c in bars for segment in c.get_segments()]
    assert lengths == pytest.approx([0.02] * 6)
    assert "Bars: ± 1 standard error." in caption(ax)


def test_trajectories_start_early_and_end_late(grid: list[Path]) -> None:
    ax = plot_flatness_compressibility(grid[:1], points="trajectory")
    (way,) = (c for c in ax.collections if isinstance(c, LineCollection) and c.zorder == 1)
    segments = np.asarray(way.get_segments())
    assert segments[:, 0] == pytest.approx(np.array([[1.0, 9000.0], [0.5, 8000.0]]))
    assert segments[-1, 1] == pytest.approx(np.array([0.01, 1000.0]))
    colors = np.asarray(way.get_colors())
    assert colors[0, 3] < colors[1, 3]
    bar = ax.figure.axes[1]
    assert bar.get_ylim() == pytest.approx((0.05, 0.5))  # the error of all rows, not of the last alone
    assert colors[:, :3] == pytest.approx(np.array([COLOR_MAP((error - 0.05) / 0.45)[:3] for error in (0.3, 0.05)]))
    assert "early" in caption(ax)


def test_a_run_of_one_row_is_a_point_without_a_way(make_run: Any) -> None:
    run = make_run(sharpness=(0.1,), bits=(10.0,), loss=(1.0,), error=(0.1,))
    ax = plot_flatness_compressibility(run, points="trajectory")
    assert points(ax).tolist() == [[0.1, 10.0]]
    assert "τ not defined (n = 1 run)" in caption(ax)


def test_matched_loss_takes_the_nearest_row_by_ratio(make_run: Any) -> None:
    run = make_run(sharpness=(4.0, 2.0, 1.0), bits=(3.0, 2.0, 1.0), loss=(0.3, 0.045, 0.001))
    ax = plot_flatness_compressibility(run, matched_loss=0.02)
    assert points(ax).tolist() == [[2.0, 2.0]]  # 0.045 / 0.02 = 2.25, but 0.02 / 0.001 = 20
    assert "where its training loss is nearest to 0.02" in caption(ax)


def test_matched_loss_by_difference_where_losses_are_negative(make_run: Any) -> None:
    run = make_run(sharpness=(4.0, 2.0, 1.0), bits=(3.0, 2.0, 1.0), loss=(0.5, -0.1, -2.0))
    assert points(plot_flatness_compressibility(run, matched_loss=-1.5)).tolist() == [[1.0, 1.0]]


def test_unmatched_losses_warn(make_run: Any) -> None:
    runs = [make_run(loss=(1.0, 0.5, last)) for last in (0.1, 0.31)]
    with pytest.warns(UserWarning, match=r"not at matched loss: their training losses 0\.1 to 0\.31"):
        ax = plot_flatness_compressibility(runs)
    assert "NOT at matched loss: training losses 0.1 to 0.31" in caption(ax)


def test_a_factor_of_three_is_matched(make_run: Any) -> None:
    ax = plot_flatness_compressibility([make_run(loss=(1.0, 0.5, last)) for last in (0.1, 0.3)])
    assert "NOT" not in caption(ax)


def test_a_loss_of_zero_matches_nothing_else(make_run: Any) -> None:
    runs = [make_run(loss=(1.0, 0.5, last)) for last in (0.0, 0.1)]
    with pytest.warns(UserWarning, match="not at matched loss"):
        plot_flatness_compressibility(runs)


@pytest.mark.parametrize(
    ("group", "title"), [("batch_size", "batch size"), ("hyper_parameters.batch_size", "hyper parameters.batch size")]
)
def test_groups_have_markers_and_a_legend(grid: list[Path], group: str, title: str) -> None:
    legend = plot_flatness_compressibility(grid, group=group).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["8", "128"]  # as numbers, not as words
    assert legend.get_title().get_text() == title
    markers = {handle.get_marker() for handle in legend.legend_handles}
    assert len(markers) == 2


def test_a_callable_groups_runs(grid: list[Path]) -> None:
    ax = plot_flatness_compressibility(grid, group=lambda run: len(run.groups), color=None)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["2"]
    assert len(ax.figure.axes) == 1


def test_a_hyper_parameter_colours(grid: list[Path]) -> None:
    ax = plot_flatness_compressibility(grid, color="batch_size")
    assert ax.figure.axes[1].get_ylabel() == "batch size"
    (cloud,) = (c for c in ax.collections if isinstance(c, PathCollection))
    assert sorted(set(cloud.get_array())) == [8.0, 128.0]


def test_a_colour_that_is_nan_is_grey_and_said(make_run: Any) -> None:
    runs = [make_run(error=(0.5, 0.3, last)) for last in (0.2, np.nan, 0.4)]
    ax = plot_flatness_compressibility(runs)
    clouds = [c for c in ax.collections if isinstance(c, PathCollection)]
    assert sorted(len(cloud.get_offsets()) for cloud in clouds) == [1, 2]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["held-out error (fraction of labels) not recorded"]


def test_runs_may_be_open_or_a_table(grid: list[Path]) -> None:
    expected = points(plot_flatness_compressibility(grid))
    assert points(plot_flatness_compressibility([open_run(path) for path in grid])) == pytest.approx(expected)
    tables = [open_run(path).table().assign(run=f"r{index}", width=index) for index, path in enumerate(grid)]
    shuffled = pd.concat(tables).sample(frac=1, random_state=0)
    ax = plot_flatness_compressibility(shuffled, group="width")
    assert points(ax) == pytest.approx(expected)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list("012345")


def test_given_axes_are_drawn_on(grid: list[Path]) -> None:
    _, ax = plt.subplots()
    assert plot_flatness_compressibility(grid, ax=ax) is ax


def test_incomplete_rows_do_not_stand_for_a_run(make_run: Any) -> None:
    run = make_run(sharpness=(0.4, 0.2, np.nan))
    assert points(plot_flatness_compressibility(run)).tolist() == [[0.2, 2000.0]]


def test_a_run_without_the_measures_is_named(make_run: Any, grid: list[Path]) -> None:
    lacking = make_run(groups=("sharpness",))
    with pytest.warns(UserWarning, match="left out.*<memory>"):
        ax = plot_flatness_compressibility([*grid, lacking])
    assert "1 of 7 runs left out" in caption(ax)


def test_what_no_run_has_is_an_error_with_advice(make_run: Any, grid: list[Path]) -> None:
    with pytest.raises(FileError, match=r"None of the 6 runs .*did you mean bits\[tolerance=0\.03\]"):
        plot_flatness_compressibility(grid, y="bits[tolerance=0.3]")
    with pytest.raises(FileError, match="has no column 'zzz'; choose among step, "):
        plot_flatness_compressibility(grid[0], color="zzz")
    with pytest.raises(
        FileError, match="None of the 6 runs has an attribute or hyper-parameter 'batchsize'; .*batch_size"
    ):
        plot_flatness_compressibility(grid, group="batchsize")
    with pytest.raises(FileError, match=r"'model' is no number \(found 'Net'\)"):
        plot_flatness_compressibility(grid, color="model")
    with pytest.raises(FileError, match="'status' is no number, so"):
        plot_flatness_compressibility(grid, color="status")
    with pytest.raises(FileError, match="No run has a row with both"):
        plot_flatness_compressibility(make_run(sharpness=(np.nan,) * 3))


def test_wrong_arguments_are_told(grid: list[Path]) -> None:
    with pytest.raises(ValueError, match="expected 'final' or 'trajectory'"):
        plot_flatness_compressibility(grid, points="all")
    with pytest.raises(ValueError, match="matched_loss is nan"):
        plot_flatness_compressibility(grid, matched_loss=np.nan)
    with pytest.raises(ValueError, match="no runs"):
        plot_flatness_compressibility([])
    with pytest.raises(ValueError, match="no column 'run'"):
        plot_flatness_compressibility(pd.DataFrame({"average_case": [1.0]}))
    with pytest.raises(TypeError, match="found int"):
        plot_flatness_compressibility([1])
