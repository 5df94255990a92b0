"""Show on the terminal which measurement is under way and how long it takes."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from landscape.callbacks._notes import duration


@contextlib.contextmanager
def waiting(trainer: Any, name: str, seconds: float) -> Iterator[None]:
    """Show a line below the Trainer's progress bar, and remove it afterwards.

    Nothing is shown where the Trainer has no bar or standard error is no terminal, so nothing reaches log files.

    Args:
        trainer: The Trainer.
        name: What is measured.
        seconds: How long it is expected to take; NaN where that is not known.

    Yields:
        Nothing.
    """
    bar = getattr(trainer, "progress_bar_callback", None)
    if bar is None or not trainer.is_global_zero:
        yield
        return
    text = f"measuring {name}" + ("" if math.isnan(seconds) else f", about {duration(seconds)}")
    rich: Any = getattr(bar, "progress", None)
    line, task = None, None
    with contextlib.suppress(Exception):  # a picture is never worth a training
        if hasattr(rich, "add_task") and hasattr(rich, "remove_task"):
            task = rich.add_task(text, total=1)
        elif rich is None and sys.stderr.isatty():
            line = tqdm(total=0, desc=text, bar_format="{desc}", leave=False, file=sys.stderr)
    try:
        yield
    finally:
        with contextlib.suppress(Exception):
            if task is not None:
                rich.remove_task(task)
            if line is not None:
                line.close()
