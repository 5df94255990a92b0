"""Run all comparisons, and write most tables into README.md, each between its marks: `make bench`."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
# Network, batches, threads, rounds, and who is left out: power iteration would take a quarter of an hour a run there.
PAIRS: list[tuple[str, int, int, int, list[str]]] = [
    ("cnn", 1, 1, 3, []),
    ("cnn", 4, 1, 1, []),
    ("transformer", 1, 1, 2, []),
    ("transformer", 4, 1, 2, ["pyhessian"]),
    ("cnn", 1, 2, 3, []),
    ("transformer", 1, 2, 2, ["pyhessian"]),
]
RUNS: dict[str, list[list[str]]] = {
    "products": [["products.py", "--rounds", "15", "--threads", threads] for threads in ("1", "2")],
    "eigenpairs": [
        ["eigenpairs.py", "--network", name, "--batches", str(batches), "--threads", str(threads)]
        + ["--rounds", str(rounds), "--without", *without]
        for name, batches, threads, rounds, without in PAIRS
    ],
    "traces": [["traces.py"]],
    "memory": [["memory.py"]],
    "coding": [["coding.py"]],
    "sgld": [["sgld.py"]],
    "overhead": [["overhead.py"]],
}
# Their figures are copied into README.md by hand: they stand in tables of several runs.
PRINTED = {
    name: [[f"{name}.py"]] for name in ("sharpness", "monitor", "connectivity", "surface", "trajectory", "compression")
}


def written(name: str, table: str) -> None:
    """Put a table in the place of the one before."""
    readme = HERE / "README.md"
    begin, end = f"<!-- {name}: written by bench.py -->", f"<!-- end of {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    text, count = pattern.subn(lambda _: f"{begin}\n\n{table.strip()}\n\n{end}", readme.read_text())
    if not count:
        raise SystemExit(f"{readme.name} has no place for the table {name!r}: put the line {begin} and {end} there")
    readme.write_text(text)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*RUNS, *PRINTED, []], help="which; all by default")
    for name in parser.parse_args().names or [*RUNS, *PRINTED]:
        tables = []
        for arguments in (RUNS | PRINTED)[name]:
            process = subprocess.Popen(
                [sys.executable, str(HERE / arguments[0]), *arguments[1:]], stdout=subprocess.PIPE, text=True
            )
            lines = []
            for line in process.stdout or ():
                print(line, end="", flush=True)
                lines.append(line)
            if process.wait():
                raise SystemExit(f"{' '.join(arguments)} failed")
            tables.append("".join(lines))
        if name in RUNS:
            written(name, "\n".join(tables))


if __name__ == "__main__":
    main()
