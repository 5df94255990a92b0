"""Refuse a release of torch or Lightning that no longer does what the package relies on."""

from __future__ import annotations

from typing import Any

from landscape._errors import MeasurementError


def refusal(package: str, version: Any, does: str) -> MeasurementError:
    """Return the error for a release that no longer does what we rely on.

    Args:
        package: Name of the package.
        version: Its version.
        does: The behaviour that is gone, a phrase that begins with a verb.

    Returns:
        The error, to be raised.
    """
    return MeasurementError(
        f"{package} {version} no longer {does}, which landscape relies on; install an earlier {package}, or a newer "
        "landscape"
    )


def require(holds: bool, package: str, version: Any, does: str) -> None:
    """Raise an error that names the release and the cure, unless a check holds.

    Args:
        holds: Whether the package still does what we rely on.
        package: Name of the package.
        version: Its version.
        does: The behaviour that is gone, a phrase that begins with a verb.

    Raises:
        MeasurementError: The check does not hold.
    """  # noqa: DOC501 - `refusal` makes the error
    if not holds:
        raise refusal(package, version, does)
