"""Read budgets of memory: bytes, a text such as "8GB", or "auto" for what is free on a device."""

from __future__ import annotations

import math
import numbers
import os
import re
from pathlib import Path
from typing import Any

import torch

from landscape._errors import MeasurementError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_TEXT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]I?)?B?\s*", re.IGNORECASE)
# Share of the free memory that "auto" leaves to others, and the least that it leaves, in bytes.
_MARGIN, _LEAST = 0.1, 2**28


def budget_bytes(memory_budget: int | str | None, device: torch.device) -> int | None:
    """Return a budget of memory in bytes.

    Args:
        memory_budget: Bytes; a text such as "8GB" or "500 MiB"; "auto" for what is free on the device less a tenth of
            it, 256 MiB at least; or None for no limit.
        device: Where the memory is.

    Returns:
        The bytes; None for no limit.

    Raises:
        ValueError: It is none of these.
        MeasurementError: "auto", and the device does not tell what is free.

    Example:
        >>> budget_bytes("1.5 GB", torch.device("cpu"))
        1500000000
    """
    if memory_budget is None:
        return None
    if memory_budget == "auto":
        free = free_bytes(device)
        return max(int(free - max(_MARGIN * free, _LEAST)), 0)
    size = _size(memory_budget)
    if size is None:
        raise ValueError(
            f"memory_budget is {memory_budget!r}; give bytes as a number above 0, a text such as '8GB', or 'auto'"
        )
    return size


def free_bytes(device: torch.device) -> int:
    """Return what is free on a device: on the CPU, what programs may take before they swap.

    Args:
        device: The device.

    Returns:
        Bytes. Memory that torch holds on a CUDA device and does not use counts as free.

    Raises:
        MeasurementError: The device does not tell.
    """
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    if device.type == "cpu" and (found := _available()) is not None:
        return found
    raise MeasurementError(
        f"the free memory of the device {device} is not known here; give memory_budget= in bytes, such as '8GB'"
    )


def fits(memory_budget: int | str | None, operator: Any) -> float:
    """Return how many vectors of an operator's length and type a budget holds; infinite without a limit."""
    size = budget_bytes(memory_budget, operator.device)
    each = operator.shape[0] * torch.empty((), dtype=operator.dtype).element_size()
    return math.inf if size is None else size // each


def _size(value: Any) -> int | None:
    if isinstance(value, str) and (match := _TEXT.fullmatch(value)):
        value = float(match[1]) * _UNITS[(match[2] or "").upper()]
    size = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    return int(size) if 1 <= size < math.inf else None


def _available() -> int | None:
    """Return the memory that this process may still take on the host: of the machine, or of its control group."""
    found = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines() if ":" in line)
        if "MemAvailable" in lines:
            found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    elif hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.exists() and used.exists() and (text := limit.read_text(encoding="ascii").strip()) != "max":
        found.append(max(int(text) - int(used.read_text(encoding="ascii")), 0))
    return min(found, default=None)
