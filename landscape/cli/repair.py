"""`landscape repair`: what a killed training has left in a run file, and a clean copy of it."""

from __future__ import annotations

from pathlib import Path

import click
from rich import box
from rich.table import Table

from landscape._text import visible
from landscape.cli._foreseen import of_files
from landscape.cli._output import say, say_json
from landscape.cli._tables import console, shown
from landscape.record._repair import FileState, clean_copy, inspect_file

_EXAMPLE = (
    "\b\nExample:\n  landscape repair lightning_logs/version_0/landscape.h5\n"
    "  landscape repair landscape.h5 --out clean.h5"
)


@click.command("repair", epilog=_EXAMPLE)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Write a copy with complete rows only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(file: Path, out: Path | None, as_json: bool) -> None:
    """Read all of FILE, say which rows are complete, and write a copy without the rest.

    A run file whose training was killed opens as it is, and readers skip a row that was begun and not finished; a copy
    is for programs that read the HDF5 by themselves. FILE is never changed, and a copy of a clean file is equal to it.
    """  # noqa: DOC501 - this text is what --help prints
    with of_files([file]):
        state = inspect_file(file) if out is None else clean_copy(file, out)
    if as_json:
        written = None if out is None else str(out)
        say_json(state.to_dict() | {"written": written})
        return
    _print(state)
    if out is not None:
        say(f"Written: {out}")


def _print(state: FileState) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("group")
    for title in ("complete rows", "failed", "steps", "unfinished rows"):
        table.add_column(title, justify="right")
    for group in state.groups:
        steps = f"{group.first_step} to {group.last_step}" if group.rows else ""
        table.add_row(shown(group.name), str(group.rows), str(group.failed), steps, str(group.unfinished))
    console().print(table)
    for name in state.leftovers:
        say(f"Beside it: {visible(name)}, a temporary file of a writer; it goes when the run goes on.")
    if state.damaged:
        say(f"Rows whose values do not match their checksums: {state.damage()}; a copy has them as failed rows.")
    if state.unfinished:
        say(f"Rows begun and not finished: {state.unfinished}; all others are whole.")
    else:
        say("All other rows are whole." if state.damaged else "All rows are whole.")
