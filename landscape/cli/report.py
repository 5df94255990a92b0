"""`landscape report`: one page about run files."""

from __future__ import annotations

from pathlib import Path

import click
import matplotlib as mpl

from landscape import analysis
from landscape.cli._foreseen import of_files
from landscape.cli._output import say


def _check_suffix(ctx: click.Context, parameter: click.Parameter, out: Path) -> Path:
    if out.suffix.lower() not in (".html", ".htm"):
        raise click.BadParameter(f"{out} must end in .html")
    return out


@click.command("report", epilog="\b\nExample:\n  landscape report runs/*.h5 --out report.html")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--out", "-o", type=click.Path(path_type=Path), required=True, callback=_check_suffix, help="Page to write: .html."
)
def command(runs: tuple[Path, ...], out: Path) -> None:
    """Write one HTML page about run files, with all their pictures inside, and print where it was written."""
    mpl.use("Agg")
    with of_files(runs):
        say(analysis.write_report(runs, out))
