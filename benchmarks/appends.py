"""What an append costs at different lengths of a run file: `python benchmarks/appends.py [10 1000 100000]`.

The files take turns, one append each, so that other work on the machine disturbs all of them alike.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from landscape.record import Coordinate, GroupSchema, Recorder, Variable

SCHEMA = GroupSchema(
    "sharpness", "scalars and a vector", [Variable("a"), Variable("b"), Variable("v", ("i",))], [Coordinate("i", 10)]
)
ROUNDS = 300
BLOCK = 10_000  # rows that wait together: fewer than a recorder takes in the ten seconds that it waits for a reader


def row_at(step: int) -> dict[str, Any]:
    """Return a row of the group."""
    return {"step": step, "a": step / 3, "b": -step, "v": np.arange(10.0) + step}


def filled(path: Path, count: int) -> tuple[Recorder, float]:
    """Return a recorder of a file with many rows, and the milliseconds a row that writing them together took."""
    recorder = Recorder.create(path, {})
    recorder.declare(SCHEMA)
    seconds = 0.0
    for start in range(0, count, BLOCK):
        with h5py.File(path, "r"):  # a reader: the rows wait, and are written into a copy
            for step in range(start, min(count, start + BLOCK)):
                recorder.append("sharpness", row_at(step))
            began = time.process_time()
            recorder.close(timeout=0)
            seconds += time.process_time() - began
    return recorder, 1e3 * seconds / count


def main(counts: list[int]) -> None:
    """Print a table: milliseconds an append, by the clock and by the processor."""
    with tempfile.TemporaryDirectory() as folder:
        made = {count: filled(Path(folder, f"{count}.h5"), count) for count in counts}
        taken: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
        for number in range(ROUNDS):
            for count, (recorder, _) in made.items():
                clock, processor = time.perf_counter(), time.process_time()
                recorder.append("sharpness", row_at(count + number))
                taken[count].append((time.perf_counter() - clock, time.process_time() - processor))
        print("| rows in the file | median, ms | processor, ms | ratio | rows written together, ms a row |")
        print("|---|---|---|---|---|")
        first = statistics.median(processor for _, processor in taken[counts[0]])
        for count, times in taken.items():
            clock, processor = (statistics.median(column) for column in zip(*times, strict=True))
            together = made[count][1]
            print(f"| {count} | {1e3 * clock:.2f} | {1e3 * processor:.2f} | {processor / first:.2f} | {together:.2f} |")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [10, 1000, 100_000])
