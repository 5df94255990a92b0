"""The demo: do flat solutions compress? Batch size, label noise and weight averaging on handwritten digits.

Trains a grid of small networks on scikit-learn's digits with the toolkit's callbacks, one run file each, certifies
what small codes have learnt, and draws the main pictures from the files. Run it with `landscape demo`, or
`python scripts/digits_demo.py`.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from rich.console import Console

from landscape import open_run
from landscape.analysis import (
    plot_bound_decomposition,
    plot_connectivity,
    plot_flatness_compressibility,
    plot_rank_correlations,
    plot_rate_distortion,
    plot_sharpness,
    plot_spectrum,
    plot_swa,
)
from landscape.studies._digits_report import certificates_in_words, in_words, show_table
from landscape.studies._parallel import run_all

BATCH_SIZES = (16, 64)
LABEL_NOISE = (0.0, 0.2)
SOLUTIONS = ("decayed SGD", "SWA")
SEEDS = (0, 1, 2)
EPOCHS = 40
# The tolerance of the compressibility axis: a tenth of a nat that the decoded network may lose.
BITS = "bits[tolerance=0.1]"
MEASURES = ("average_case", "average_case_stderr", "trace", "trace_stderr", "lambda_max", BITS)
LOSSES = ("train_loss", "train_error", "held_out_loss", "held_out_error")


def main(out: Path = Path("demo"), quick: bool = False, workers: int | None = None) -> pd.DataFrame:
    """Train the grid, write run files, certificates, eight figures and a table, and say what they show.

    Args:
        out: Folder for everything.
        quick: One seed and fewer epochs, to see that it works; the orderings need the full grid.
        workers: Trainings side by side; by default one a core.

    Returns:
        The table of final points, a row a run.
    """
    console = Console()
    runs = out / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    seeds, epochs = (SEEDS[:1], 6) if quick else (SEEDS, EPOCHS)
    grid = list(itertools.product(BATCH_SIZES, LABEL_NOISE, SOLUTIONS, seeds))
    jobs = [
        {
            "path": str(runs / _name(*cell)),
            "epochs": epochs,
            **dict(zip(("batch_size", "noise", "solution", "seed"), cell, strict=True)),
        }
        for cell in grid
    ]
    for path in (*(job["path"] for job in jobs), out / "showcase.h5"):
        Path(path).unlink(missing_ok=True)  # of an earlier demo: a callback would keep it under another name
    console.print(f"Training {len(jobs)} networks on digits, one run file each, in {runs}/ ...")
    run_all(train, jobs, "trainings", workers)
    partner = str(runs / _name(BATCH_SIZES[0], LABEL_NOISE[1], SOLUTIONS[0], seeds[0]))
    showcase = str(out / "showcase.h5")
    console.print("Training one more, measured along the way and connected to the first ...")
    run_all(train_showcase, [{"path": showcase, "other": partner, "epochs": epochs}], "showcase", 1)
    console.print("Certifying two small codes of digits, with true and with random labels ...")
    certified = run_all(certify_cell, certificate_jobs(out, epochs=10 if quick else 60), "certificates", workers)
    points = final_points(jobs)
    points.to_csv(out / "table.csv", index=False)
    figures = draw(points, showcase, [row["path"] for row in certified], out)
    show_table(console, points, BITS)
    console.print()
    for sentence in [*in_words(points, open_run(showcase), BITS), certificates_in_words(certified)]:
        console.print(f"• {sentence}", soft_wrap=True, highlight=False)
    console.print("\nWritten:")
    for path in (*figures, out / "table.csv", showcase, *(row["path"] for row in certified)):
        console.print(f"  {path}", soft_wrap=True, highlight=False)
    console.print(f"Look inside a run: landscape show {showcase}", soft_wrap=True, highlight=False)
    return points


def train(path: str, batch_size: int, noise: float, solution: str, seed: int, epochs: int) -> None:
    """Train one cell of the grid, and measure its solution: the last weights, or the average of the last quarter."""
    from landscape.callbacks import Compressibility, HessianSpectrum, Sharpness, SWATrajectory

    average = solution == "SWA"
    data = {"path": path, "examples": None, "batch_size": 1400, "on_error": "raise"}
    once = {"every_n_epochs": epochs, "weights": "swa" if average else "iterate", **data}
    callbacks = [
        SWATrajectory(start=0.75 if average else epochs - 1, **data),
        Sharpness(draws=40, **once),
        HessianSpectrum(k=5, probes=2, **once),
        Compressibility(**once),
    ]
    _fit(callbacks, seed, seed, epochs, batch_size=batch_size, label_noise=noise, decay_from=1.0 if average else 0.5)


def train_showcase(path: str, other: str, epochs: int) -> None:
    """Train once more on the labels of a network of the grid, from another start, and connect the two at the end."""
    from landscape.callbacks import default_callbacks

    data = {"path": path, "examples": None, "batch_size": 1400, "on_error": "raise"}
    callbacks = default_callbacks(every_n_epochs=4, swa_start=0.5, overhead=None, **data)
    callbacks[-1].other = other
    _fit(callbacks, 100, SEEDS[0], epochs, batch_size=BATCH_SIZES[0], label_noise=LABEL_NOISE[1], decay_from=1.0)


def _fit(callbacks: list[Any], seed: int, data_seed: int, epochs: int, **hyper_parameters: Any) -> None:
    import pytorch_lightning as pl
    import torch

    from landscape.studies._digits import DigitsMLP, loaders

    # Notices about loggers, workers and devices: a study trains many small networks on purpose.
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning)\.")
    torch.set_num_threads(1)
    pl.seed_everything(seed, verbose=False)
    module = DigitsMLP(width=64, seed=seed, epochs=epochs, **hyper_parameters)
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=epochs,
    )
    trainer.fit(module, *loaders(hyper_parameters["batch_size"], hyper_parameters["label_noise"], data_seed))


def certificate_jobs(out: Path, epochs: int) -> list[dict[str, Any]]:
    """List what is certified: each of the study's two networks, on true and on random labels."""
    names = ("cosine, linear", "one hidden layer, subspace")
    return [
        {"name": name, "random": random, "epochs": epochs, "seed": 0}
        | {"path": str(out / f"{name.split(',')[0].replace(' ', '-')}-{'random' if random else 'true'}-labels.lsc")}
        for name, random in itertools.product(names, (False, True))
    ]


def certify_cell(path: str, **job: Any) -> dict[str, Any]:
    """Train one code, write its certificate, and verify it from the file alone."""
    from landscape.studies.digits_certificates import cell

    return {"path": path, **cell(path=Path(path), **job)}


def final_points(jobs: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Read the solution of every run out of its file: one row each."""
    rows = []
    for job in jobs:
        last = open_run(job["path"]).table().iloc[-1]
        prefix = "swa_" if job["solution"] == "SWA" else ""
        rows.append(
            {"run": Path(job["path"]).stem, "batch size": job["batch_size"], "label noise": job["noise"]}
            | {"solution": job["solution"], "seed": job["seed"]}
            | {"solution and labels": f"{job['solution']}, {job['noise']:.0%} label noise", "step": last["step"]}
            | {name: last[prefix + name] for name in LOSSES}
            | {name: last[name] for name in MEASURES}
        )
    return pd.DataFrame(rows)


def draw(points: pd.DataFrame, showcase: str, certificates: Sequence[str], out: Path) -> list[Path]:
    """Draw the eight figures and return their paths."""
    runs = sorted(str(path) for path in (out / "runs").glob("*.h5"))
    drawn = {
        "flatness-compressibility": lambda: plot_flatness_compressibility(points, y=BITS, group="solution and labels"),
        "spectrum": lambda: plot_spectrum(showcase),
        "sharpness": lambda: plot_sharpness(showcase),
        "connectivity": lambda: plot_connectivity(showcase),
        "swa": lambda: plot_swa(showcase),
        "rate-distortion": lambda: plot_rate_distortion(runs, label="label_noise"),
        "rank-correlations": lambda: plot_rank_correlations(runs, target=BITS),
        "bound": lambda: plot_bound_decomposition(certificates),
    }
    paths = []
    for name, plot in drawn.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that losses are not matched is said in words below
            axes = plot()
        figure = (axes if hasattr(axes, "figure") else axes.flat[0]).figure
        paths.append(out / f"{name}.png")
        figure.savefig(paths[-1], dpi=150, bbox_inches="tight")
        plt.close(figure)
    return paths


def _name(batch_size: int, noise: float, solution: str, seed: int) -> str:
    return f"batch{batch_size}-noise{noise:g}-{solution.replace(' ', '-')}-seed{seed}.h5"


if __name__ == "__main__":
    main()
