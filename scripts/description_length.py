"""Labels that have a rule are sent in few bits; random ones in as many as the uniform code takes, or more.

The prequential code length of digits' labels, given the images, from true labels to random ones (Dawid 1984; Blier and
Ollivier 2018; Goldblum et al. 2023, arXiv:2304.05366, on why real data have short codes). A network that fits random
labels perfectly has not compressed them: what it has stored must be sent as well, which its two-part code shows.
"""

from __future__ import annotations

import bz2
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from rich import box
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

from landscape.analysis._style import BLACK, BLUE, GREY, PALETTE, VERMILION, caption, new_axes, style
from landscape.studies._parallel import run_all

CORRUPTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
SEEDS = (0, 1, 2)
CLASSES = 10
WIDTH = 256


def main(out: Path = Path("description-length"), seeds: tuple[int, ...] = SEEDS, workers: int | None = None) -> Any:
    """Measure all levels of corruption, and write a table and a figure.

    Args:
        out: Folder for table.csv, images.csv and description-length.png.
        seeds: Seeds of the noise, the order and the trainings.
        workers: Processes; by default one a core.

    Returns:
        The table, a row for each corruption and seed.
    """
    out.mkdir(parents=True, exist_ok=True)
    jobs = [{"corruption": corruption, "seed": seed} for corruption in CORRUPTIONS for seed in seeds]
    table = pd.DataFrame(run_all(describe, jobs, "code lengths", workers))
    images = pd.Series(image_bytes(seeds[0]), name="bytes")
    table.to_csv(out / "table.csv", index=False)
    images.to_csv(out / "images.csv", index_label="images")
    figure = draw(table, images)
    figure.savefig(out / "description-length.png", dpi=150, bbox_inches="tight")
    plt.close(figure)
    _show(Console(highlight=False), table, images)
    return table


def describe(corruption: float, seed: int) -> dict[str, Any]:
    """Measure the code lengths of digits' labels of which a fraction was drawn at random.

    Args:
        corruption: The fraction.
        seed: Seed of the noise, the order of the examples, and the trainings.

    Returns:
        A row: the prequential length, and the two-part length of a network trained on all labels, in bits and relative
        to the uniform code.
    """
    import torch
    from torch import nn

    from landscape import Objective
    from landscape.description import AdamTraining, prequential, two_part
    from landscape.isolation import seeded
    from landscape.studies._digits import loaders

    torch.set_num_threads(1)
    data: Any = loaders(100, corruption, seed)[0].dataset
    x, y = data.tensors

    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES))

    sent = prequential(network, (x, y), AdamTraining(), seed=seed, progress=False)
    with seeded(seed):
        model = network()
        _fit(model, x, y)
    objective = Objective(model, nn.functional.cross_entropy, [(x, y)])
    parts = two_part(objective)
    return {
        "corruption": corruption,
        "seed": seed,
        "labels": sent.n_labels,
        "uniform_bits": sent.uniform_bits,
        "prequential_bits": sent.bits,
        "prequential_ratio": sent.ratio,
        "network_loss": parts.loss,
        "two_part_bits": parts.bits,
        "two_part_ratio": parts.ratio,
        "two_part_ratio_at_0.1": float(parts.curve_bits[parts.tolerances == 0.1][0]) / parts.uniform_bits,
    }


def _fit(model: Any, x: Any, y: Any, loss: float = 0.01, steps: int = 20_000) -> None:
    """Train until the labels are fitted, at most so many steps of all examples."""
    import torch

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(model(x), y)
        if float(value.detach()) <= loss:
            return
        value.backward()
        optimizer.step()


def image_bytes(seed: int = 0) -> dict[str, int]:
    """Compress the images of digits by bz2, as they are and with all pixels of all images shuffled.

    Args:
        seed: Seed of the shuffling.

    Returns:
        Sizes in bytes, one byte a pixel before compression.
    """
    images = load_digits().images.astype(np.uint8)
    shuffled = np.random.default_rng(seed).permutation(images.ravel())
    return {
        "raw": images.nbytes,
        "shuffled pixels": len(bz2.compress(shuffled.tobytes())),
        "digits": len(bz2.compress(images.tobytes())),
    }


def noise_entropy(corruption: Any) -> Any:
    """Return the entropy of a label given its true one, over log2 of the classes: no code is shorter on the average.

    Args:
        corruption: Fractions of labels drawn anew from all classes, true ones included; an array.

    Returns:
        The ratio, in the shape of the fractions.
    """
    other = np.asarray(corruption, dtype=np.float64) / CLASSES
    kept = 1 - (CLASSES - 1) * other
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = -kept * np.log2(kept) - (CLASSES - 1) * np.where(other > 0, other * np.log2(other), 0.0)
    return bits / math.log2(CLASSES)


def draw(table: pd.DataFrame, images: pd.Series) -> Any:
    """Draw code length against corruption, and the sizes of the images, and return the figure."""
    with style():
        ax, bars = new_axes(1, 2, size=(9.2, 4.4), width_ratios=[3, 1])
        levels = table.groupby("corruption")["prequential_ratio"]
        mean, spread = levels.mean(), levels.std(ddof=1) / np.sqrt(levels.count())
        fine = np.linspace(0, 1, 101)
        ax.axhline(1.0, color=BLACK, linewidth=1.2, linestyle="--", label="uniform code, n log₂ 10")
        ax.plot(fine, noise_entropy(fine), color=GREY, label="entropy of the noise, a floor on the average")
        ax.plot(
            table["corruption"],
            table["two_part_ratio"],
            "s",
            color=VERMILION,
            markersize=4,
            label="weights and labels in two parts, shortest",
        )
        ax.plot(table["corruption"], table["prequential_ratio"], "o", color=BLUE, markersize=3, alpha=0.45)
        ax.errorbar(
            mean.index, mean, yerr=spread, color=BLUE, capsize=4, marker="o", markersize=5, label="prequential, mean"
        )
        ax.set(xlabel="fraction of random labels", ylabel="code length of the labels / uniform code", ylim=(0, 1.3))
        ax.legend(loc="lower right")
        seeds = table["seed"].nunique()
        caption(
            ax,
            [
                f"{int(table['labels'].iloc[0])} labels of digits, given the images.",
                f"Points: {seeds} seeds; bars: standard errors over them.",
            ],
        )
        bars.bar(range(len(images)), images / 1000, color=[GREY, PALETTE[4], BLUE], width=0.65)
        for place, size in enumerate(images):
            bars.text(place, size / 1000, f"{size / 1000:.0f}", ha="center", va="bottom", fontsize=9)
        bars.set_xticks(range(len(images)), [str(name).replace(" ", "\n") for name in images.index], fontsize=8.5)
        bars.set(ylabel="kB")
        caption(bars, ["The images,", "compressed by bz2."])
    return ax.figure


def _show(console: Console, table: pd.DataFrame, images: pd.Series) -> None:
    shown = Table(title="Code length of the labels over that of the uniform code", box=box.SIMPLE_HEAD)
    for title in ("random labels", "prequential, by seed", "two parts, shortest", "two parts, loss within 0.1"):
        shown.add_column(title, justify="right")
    for corruption, rows in table.groupby("corruption"):
        ratios = ["  ".join(f"{value:.3f}" for value in rows[name]) for name in _RATIOS]
        shown.add_row(f"{corruption:.0%}", *ratios)
    console.print(shown)
    sizes = ", ".join(f"{name} {size / 1000:.1f} kB" for name, size in images.items())
    console.print(f"Images under bz2: {sizes}.")


_RATIOS = ("prequential_ratio", "two_part_ratio", "two_part_ratio_at_0.1")


if __name__ == "__main__":
    main()
