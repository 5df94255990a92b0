"""`landscape demo`: the project's point in one picture, from a few minutes of training."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

_STUDY = "landscape.studies.digits_demo"


@click.command("demo", epilog="\b\nExample:\n  landscape demo --out demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo"),
    show_default=True,
    help="Folder for run files and figures.",
)
@click.option("--quick", is_flag=True, help="Train a smaller grid, in less time.")
def command(out: Path, quick: bool) -> None:
    """Train small networks on scikit-learn's digits, record their geometry, and draw the figures."""
    importlib.import_module(_STUDY).main(out=out, quick=quick)
