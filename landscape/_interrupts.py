"""Let an interrupt (Ctrl-C) wait until something is whole: a row in a file, or a model that is put back."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def interrupts_waiting() -> Iterator[None]:
    """Answer SIGINT on leaving, as it would have been answered within.

    Python calls signal handlers in the main thread alone, so in others nothing is to be done. A handler that is not
    Python's own (the system's default, or to ignore) is left alone.

    Yields:
        Nothing.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    arrived: list[tuple[Any, ...]] = []
    signal.signal(signal.SIGINT, lambda *how: arrived.append(how))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if arrived:
            before(*arrived[-1])
