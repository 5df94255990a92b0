"""Make a sensible set of callbacks in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from landscape._given import unknown_argument
from landscape.callbacks._arguments import accepted, known_arguments
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
    overhead: str | float | None = "10%",
    **settings: Any,
) -> list[Any]:
    """Return fresh callbacks for both axes and what leads from one solution to another.

    `LearningCoefficient` and `LossSurface`, which take longer, are to be added where they are wanted.

    Args:
        every_n_epochs: Cadence of the spectrum, sharpness and compressibility, every epoch where none is given; the
            weights are recorded every epoch from `swa_start` on, and the connectivity once, when the fit ends.
        swa_start: Where averaging begins, as in `SWATrajectory`.
        every_n_steps: The same cadence in optimizer steps.
        overhead: Share of the training's own time that all of them together may take, as "5%", "50%" or 0.1. What does
            not fit is given up in an order that `LandscapeCallback` names, and each row says what that was. The first
            event and the last are always measured, in a short fit too. None keeps the cadence, whatever it costs.
        **settings: Further arguments. Those of every callback, such as examples=, path= or on_error=, go to all; one
            that belongs to a single callback, such as k= or tolerances=, goes to that one. A part of the model,
            parameters=, goes to HessianSpectrum, Sharpness and Compressibility; the others hold the whole model.

    Returns:
        HessianSpectrum, Sharpness, SWATrajectory, Compressibility and ModeConnectivity.

    Raises:
        TypeError: No callback takes one of the arguments, or several do and mean different things by it.

    Example:
        >>> [type(callback).__name__ for callback in default_callbacks(examples=256, overhead="5%")]
        ['HessianSpectrum', 'Sharpness', 'SWATrajectory', 'Compressibility', 'ModeConnectivity']
    """
    for name in settings:
        _check(name)
    cadence: dict[str, Any] = {"every_n_epochs": every_n_epochs, "every_n_steps": every_n_steps}
    own: dict[type[LandscapeCallback], dict[str, Any]] = {
        kind: {} if kind in _OWN_TIMES else cadence for kind in _CLASSES
    }
    own[SWATrajectory] = {"start": swa_start}
    return [kind(overhead=overhead, **given, **_of(kind, settings)) for kind, given in own.items()]


_CLASSES: tuple[type[LandscapeCallback], ...] = (
    HessianSpectrum,
    Sharpness,
    SWATrajectory,
    Compressibility,
    ModeConnectivity,
)
_OWN_TIMES = (SWATrajectory, ModeConnectivity)


def _of(kind: type[LandscapeCallback], settings: Mapping[str, Any]) -> dict[str, Any]:
    taken = [name for name in accepted(kind) if not (name == "parameters" and kind.whole)]
    return {name: value for name, value in settings.items() if name in taken}


def _check(name: str) -> None:
    if name == "budget":
        known_arguments(HessianSpectrum, {name: None})  # says what it is called now
    takers = [kind.__name__ for kind in _CLASSES if name in accepted(kind)]
    if name == "start" or not takers:
        known = dict.fromkeys(["swa_start", *(each for kind in _CLASSES for each in accepted(kind) if each != "start")])
        raise TypeError(unknown_argument("default_callbacks", name, known))
    if len(takers) > 1 and name not in accepted(LandscapeCallback):
        raise TypeError(
            f"{name} is an argument of {' and of '.join(takers)}, with another meaning in each; make these callbacks "
            "one by one: callbacks=[HessianSpectrum(...), Sharpness(...)]"
        )
