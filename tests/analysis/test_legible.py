"""No word of a picture runs out of it, and captions do not lie over legends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axis import Axis, Tick
from matplotlib.text import Text

from landscape.analysis import (
    plot_bound_decomposition,
    plot_evidence,
    plot_flatness_compressibility,
    plot_rank_correlations,
    plot_rate_distortion,
)
from landscape.bounds import countable_bound


def _claims(count: int) -> list[dict[str, Any]]:
    settings = [{"n": 1437, "delta": 0.05, "method": ("kl", "exact")[index % 2]} for index in range(count)]
    rows = [{"error": 0.0, "bits": 10.0 ** (index + 1), "classes": 10, **each} for index, each in enumerate(settings)]
    names = [f"a label of the {index}th network that goes on for a while" for index in range(count)]
    bounds = [
        countable_bound(**{name: value for name, value in row.items() if name != "classes"})  # type: ignore[arg-type]
        for row in rows
    ]
    return [row | {"label": name, "bound": bound} for row, name, bound in zip(rows, names, bounds, strict=True)]


CURVE = {"precision": np.logspace(-3, 3, 9), "n_eff": np.ones(9), "n": 5}
PICTURES: dict[str, Callable[[list[Path]], Any]] = {
    "ranks": lambda runs: plot_rank_correlations(runs, n_bootstrap=20),
    "rate": plot_rate_distortion,
    "isolines": lambda runs: plot_flatness_compressibility(
        runs, bound={"n": 60_000, "classes": 10}, group="batch_size"
    ),
    "one bound": lambda runs: plot_bound_decomposition(_claims(1)),
    "bounds": lambda runs: plot_bound_decomposition(_claims(6)),
    "evidence": lambda runs: plot_evidence({"a": CURVE | {"log_evidence": -np.logspace(3, 8, 9)}}),
}


@pytest.mark.parametrize("name", PICTURES)
def test_words_stay_within_the_picture(grid: list[Path], name: str) -> None:
    axes = PICTURES[name](grid)
    figure = getattr(axes, "flat", [axes])[0].figure
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    every = figure.findobj(Axis)
    ticks = {label for axis in every for tick in axis.findobj(Tick) for label in (tick.label1, tick.label2)}
    seen = {label for axis in every for tick in axis._update_ticks() for label in (tick.label1, tick.label2)}
    for text in set(figure.findobj(Text)) - (ticks - seen):  # ticks outside of the axes' limits are not drawn
        if text.get_visible() and text.get_text().strip():
            box = text.get_window_extent()
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
            assert inside or not box.width, (text.get_text(), box.extents, (width, height))
    for ax in figure.axes:
        if ax.get_legend() is not None:
            legend, caption = ax.get_legend().get_window_extent(), ax._left_title.get_window_extent()
            assert not (caption.width and legend.overlaps(caption))
