"""`landscape show`: what a run file holds, for people or for machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich import box
from rich.table import Table
from rich.text import Text

from landscape.analysis import summarize
from landscape.analysis._summary import value_text
from landscape.cli._foreseen import of_files
from landscape.cli._output import say_json
from landscape.cli._tables import console, shown
from landscape.record._life import NAMES as _LIFE

_EXAMPLE = (
    "\b\nExample:\n  landscape show lightning_logs/version_0/landscape.h5\n"
    "  landscape show --json landscape.h5 | jq .groups"
)
_LONGEST = 10_000  # characters of a value
_FAILURES = 10  # printed without --all
_COLORS = {"running": "green", "finished": "", "interrupted": "yellow"}
_WIDE = 100  # a terminal that has room to say what the measures are


@click.command("show", epilog=_EXAMPLE)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with null for what is not a number.")
@click.option("--all", "everything", is_flag=True, help="Print every scalar and every row with a failure.")
def command(run: Path, as_json: bool, everything: bool) -> None:
    """Print what RUN holds: state, provenance, groups, first and last values, failed measurements."""
    with of_files([run]):
        summary = summarize(run)
        if as_json:
            say_json(summary)
        else:
            _print(summary, everything)


def _print(summary: dict[str, Any], everything: bool) -> None:
    out = console()
    out.print(shown(summary["path"], "bold"), soft_wrap=True)
    if (state := summary["state"]) is not None:
        out.print(shown(state["sentence"], _COLORS.get(state["state"], "red")), soft_wrap=True)
    out.print(_provenance({name: value for name, value in summary["attributes"].items() if name not in _LIFE}))
    out.print(_groups(summary["groups"]))
    for measured in summary["measured"]:
        out.print(_measured(measured), soft_wrap=True)
    values = [value for value in summary["values"] if everything or value["main"]]
    if values:
        out.print(_values(values, with_meaning=out.width >= _WIDE))
    failures = summary["failures"]
    for failure in failures if everything else failures[:_FAILURES]:
        text = f"{failure['status']}: {failure['group']} at step {failure['step']}: {failure['reason']}"
        out.print(shown(text, "red"), soft_wrap=True)
    if len(failures) > _FAILURES and not everything:
        out.print(f"... and {len(failures) - _FAILURES} more such rows; --all prints them.", style="red")


def _provenance(attributes: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in attributes.items():
        text = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
        text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
        table.add_row(shown(name), shown(text))
    return table


def _measured(measured: dict[str, Any]) -> Text:
    """Say what the loss of some groups is a mean over."""
    over = {"batches": "the batches as they are given", "weights": "weighted examples"}
    data = f"{measured['n_examples']} examples ({measured['source']}), {measured['mode']} mode"
    mean = over.get(measured["weighting"], measured["weighting"])
    text = f"{', '.join(measured['groups'])}: {data}; the loss is the mean over {mean} ({measured['evidence']})"
    return shown(text, "yellow" if measured["weighting"] == "batches" else "dim")


def _groups(groups: list[dict[str, Any]]) -> Table:
    partial = any(group["partial"] for group in groups)
    columns = {"rows": "right", "failed": "right", **({"partial": "right"} if partial else {})}
    table = _table("group", columns | {"steps": "left", "seconds": "right", "what": "left"})
    for group in groups:
        steps = "" if group["first_step"] is None else f"{group['first_step']} to {group['last_step']}"
        counts = [Text(str(group[key]), "red" if group[key] else "") for key in ("failed", "partial")[: 1 + partial]]
        seconds = f"{group['wall_seconds']:.1f}"
        table.add_row(shown(group["name"]), str(group["rows"]), *counts, steps, seconds, _cut(group["description"]))
    return table


def _values(values: list[dict[str, Any]], with_meaning: bool) -> Table:
    table = _table("measure", {"first": "right", "last": "right"} | ({"meaning": "left"} if with_meaning else {}))
    numbers = [(value_text(value["first"]), value_text(value["last"])) for value in values]
    for column, texts in zip(table.columns[1:3], zip(*numbers, strict=True), strict=True):
        column.min_width = max(map(len, texts))  # where it is narrow, names are cut, never numbers
    group = ""
    for value, (first, last) in zip(values, numbers, strict=True):
        if value["group"] != group:
            group = value["group"]
            table.add_section()
            table.add_row(shown(group, "bold"))
        meaning = [_cut(value["label"])] if with_meaning else []
        table.add_row(shown(value["name"]), first, last, *meaning)
    return table


def _cut(text: str) -> Text:
    """Return text that keeps to one line, cut short where the terminal is narrow."""
    return shown(text, no_wrap=True, overflow="ellipsis")


def _table(name: str, columns: dict[str, Any]) -> Table:
    """Return an empty table whose last column is cut short where the terminal is narrow."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title, justify in {name: "left", **columns}.items():
        table.add_column(title, justify=justify, no_wrap=title not in {"what", "meaning"})
    return table
