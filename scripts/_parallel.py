"""Independent trainings side by side in fresh processes, one thread each, with one progress bar."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def run_all(
    function: Callable[..., Any], jobs: Sequence[dict[str, Any]], description: str, workers: int | None = None
) -> list[Any]:
    """Call `function(**job)` for every job, and return the results in the jobs' order.

    Args:
        function: A function of a module, so that a fresh process can import it.
        jobs: Keyword arguments of each call.
        description: Name of the progress bar, which is shown where stderr is a terminal.
        workers: Processes; by default one a core.

    Returns:
        The results.
    """
    context = multiprocessing.get_context("spawn")  # forking a process that has run torch's threads may hang
    count = min(workers or os.cpu_count() or 1, len(jobs))
    former = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))  # read by the children when they load torch
    try:
        with concurrent.futures.ProcessPoolExecutor(count, mp_context=context) as pool:
            futures = [pool.submit(function, **job) for job in jobs]
            done = concurrent.futures.as_completed(futures)
            for future in tqdm(done, total=len(futures), desc=description, disable=None):
                future.result()  # a failed training ends the study at once
            return [future.result() for future in futures]
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
