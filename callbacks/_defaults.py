"""A sensible set of callbacks in one line."""

from __future__ import annotations

from typing import Any

from landscape.callbacks._base import LandscapeCallback
from landscape.callbacks._compressibility import Compressibility
from landscape.callbacks._hessian_spectrum import HessianSpectrum
from landscape.callbacks._mode_connectivity import ModeConnectivity
from landscape.callbacks._sharpness import Sharpness
from landscape.callbacks._swa_trajectory import SWATrajectory


def default_callbacks(
    every_n_epochs: int | None = None,
    swa_start: int | float = 0.75,
    every_n_steps: int | None = None,
    **common: Any,
) -> list[Any]:
    """Return fresh callbacks for both axes and what leads from one solution to another.

    `LearningCoefficient` and `LossSurface`, which take longer, are to be added where they are wanted.

    Args:
        every_n_epochs: Cadence of the spectrum, sharpness and compressibility, every epoch where none is given; the
            weights are recorded every epoch from `swa_start` on, and the connectivity once, when the fit ends.
        swa_start: Where averaging begins, as in `SWATrajectory`.
        every_n_steps: The same cadence in optimizer steps.
        **common: Arguments of every callback, such as examples=, path= or on_error=.

    Returns:
        HessianSpectrum, Sharpness, SWATrajectory, Compressibility and ModeConnectivity.

    Example:
        >>> [type(callback).__name__ for callback in default_callbacks(examples=256)]
        ['HessianSpectrum', 'Sharpness', 'SWATrajectory', 'Compressibility', 'ModeConnectivity']
    """
    cadence: dict[str, Any] = {"every_n_epochs": every_n_epochs, "every_n_steps": every_n_steps}
    chosen: list[LandscapeCallback] = [
        HessianSpectrum(**cadence, **common),
        Sharpness(**cadence, **common),
        SWATrajectory(start=swa_start, **common),
        Compressibility(**cadence, **common),
        ModeConnectivity(**common),
    ]
    return chosen
