"""What the demo's grid shows, in a table and in words that are computed from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from landscape.analysis import kendall
from landscape.record import Run

_CELL = ["batch size", "label noise", "solution"]


def show_table(console: Console, points: pd.DataFrame, bits: str) -> None:
    """Print means over seeds, a row a cell of the grid."""
    columns = {
        "train_loss": ("loss", "{:.3f}"),
        "held_out_error": ("error", "{:.1%}"),
        "average_case": ("sharpness", "{:.4f}"),
        "trace": ("Tr H", "{:.1f}"),
        "lambda_max": ("λmax", "{:.2f}"),
        bits: ("bits", "{:,.0f}"),
    }
    caption = (
        "loss: training, nats; error: held out; sharpness: adaptive average case; bits: shortest code found that "
        "raises the loss by at most 0.1 nat"
    )
    table = Table(title="Final solutions, mean over seeds", caption=caption, box=box.SIMPLE_HEAD)
    for name in _CELL:
        table.add_column(name)
    for label, _ in columns.values():
        table.add_column(label, justify="right")
    for cell, rows in points.groupby(_CELL, sort=True):
        batch_size, noise, solution = cell
        values = [form.format(rows[name].mean()) for name, (_, form) in columns.items()]
        table.add_row(f"{batch_size}", f"{noise:.0%}", f"{solution}", *values)
    console.print(table)


def in_words(points: pd.DataFrame, showcase: Run, bits: str) -> list[str]:
    """Say what came out: the correlation, and how many matched pairs went which way."""
    tau = kendall(points["average_case"], points[bits])
    sentences = [
        f"Over {tau.n} networks, adaptive sharpness and code length have Kendall's τ = {tau.tau:.2f} (95 % bootstrap "
        f"interval {tau.low:.2f} to {tau.high:.2f}): "
        + ("what is flatter takes fewer bits." if tau.low > 0 else "too few, or too alike, to tell.")
    ]
    sentences += [
        _pairs(points, "label noise", bits, "With label noise the network is", "than with clean labels"),
        _pairs(points, "batch size", bits, "With the larger batch the network is", "than with the smaller one"),
    ]
    noisy = points[points["label noise"] > 0]
    for name, part in (("clean labels", points[points["label noise"] == 0]), ("label noise", noisy)):
        flipped = part.assign(solution=part["solution"].map({"SWA": 0, "decayed SGD": 1}))
        sentences.append(_pairs(flipped, "solution", bits, f"At {name}, decayed SGD is", "than SWA"))
    if "mode_connectivity" in showcase.groups:
        row = showcase.dataset("mode_connectivity").isel(step=-1)
        heights = row.sel(definition="interpolated")
        linear, bezier = (float(value) for value in heights["barrier_train_loss"])
        held_linear, held_bezier = (float(value) for value in heights["barrier_held_out_loss"])
        sentences.append(
            "Two networks from different starts are separated by a barrier of "
            f"{linear:.2f} nat on the straight line, and by {bezier:.2f} nat on a trained Bézier curve; on held-out "
            f"digits by {held_linear:.2f} and {held_bezier:.2f} nat, for the curve was trained on the noisy labels."
        )
    ratio = points["train_loss"].max() / points["train_loss"].min()
    sentences.append(
        f"The training losses of these networks differ by up to a factor of {ratio:,.0f}, so part of every difference "
        "in curvature is a difference in loss; compare within a level of label noise, or at matched loss."
    )
    return sentences


def certificates_in_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say what the certificates bound, and that they were verified."""
    bounds = {
        labels: ", ".join(f"{row['bound']:.2f} ({row['network']})" for row in rows if row["labels"] == labels)
        for labels in ("true", "random")
    }
    verified = sum(bool(row["verified"]) for row in rows)
    return (
        f"With 95 % confidence the error on new digits is at most {bounds['true']}; with random labels the bound is "
        f"{bounds['random']}, and guessing errs on .90. {verified} of {len(rows)} certificates were verified from "
        "their files."
    )


def _pairs(points: pd.DataFrame, factor: str, bits: str, subject: str, comparison: str) -> str:
    """Count the pairs of runs, equal in all but one factor, in which the larger level is sharper and longer."""
    others = [name for name in (*_CELL, "seed") if name != factor]
    sharper = longer = count = 0
    for _, pair in points.groupby(others):
        if len(pair) == 2:
            low, high = pair.sort_values(factor).to_dict("records")
            sharper += high["average_case"] > low["average_case"]
            longer += high[bits] > low[bits]
            count += 1
    return f"{subject} sharper in {sharper} of {count} pairs and needs more bits in {longer} of {count} {comparison}."
