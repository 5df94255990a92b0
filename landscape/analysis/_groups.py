"""The group of a run that holds a measure: the callback's own name, or the one that other weights were given."""

from __future__ import annotations

import xarray as xr

from landscape._errors import FileError
from landscape.record import Run


def measured_rows(run: Run, group: str) -> xr.Dataset:
    """Return the rows of a group that did not fail.

    A callback that measured other weights than the training's records under a longer name (`compressibility_swa`): it
    is taken where it is the only one.

    Args:
        run: The run.
        group: The callback's group.

    Returns:
        The rows in memory.

    Raises:
        FileError: The run has no such group, several of longer names, or no row in it that succeeded.
    """
    names = run.groups
    longer = [name for name in names if name.startswith(f"{group}_")]
    if group not in names and len(longer) > 1:
        raise FileError(f"{run.path} has no group {group!r} but {' and '.join(longer)}; say which with group=")
    data = run.dataset(longer[0] if group not in names and longer else group)
    rows = data.isel(step=data["status"].values != "failed")
    if rows.sizes["step"] == 0:
        raise FileError(f"{run.path} has no row of {group!r} that succeeded; landscape show prints why.")
    return rows
