"""Read the list of measures that `Sharpness` is given, and say how each is called and described in the file."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from landscape import sharpness
from landscape._given import unknown_argument
from landscape.callbacks._arguments import at_least, counts, one_of, positive
from landscape.callbacks._axes import over_examples
from landscape.curvature import SymmetricOperator
from landscape.objective import Objective
from landscape.record import Coordinate, Variable
from landscape.sharpness._ball import NORMS
from landscape.sharpness._ladder import rungs

# measure -> (one line for the file, the setting that may be a ladder, whether there is a standard error)
_KINDS: dict[str, tuple[str, str, bool]] = {
    "gradient_norm": ("l2 norm of the gradient", "", False),
    "sam": ("rise after one step of steepest ascent (SAM, first order)", "rho", False),
    "m_sharpness": ("mean rise over groups of m examples, each after an ascent step of its own", "rho", True),
    "asam": ("rise after one ascent step stretched by the weights (ASAM)", "rho", True),
    "average_case": ("mean rise under random perturbations of the weights", "rho", True),
    "worst_case": ("largest rise found in a ball around the weights, by Auto-PGD", "rho", True),
    "keskar": ("Keskar's sharpness: 100 (largest loss in a box - L)/(1 + L)", "rho", True),
    "pac_bayes": ("1/sigma^2 of the largest noise at which the error rate rises by no more than drop", "drop", True),
    "random_radius": (
        "mean distance along random directions at which the loss has risen by threshold",
        "threshold",
        True,
    ),
    "fisher_rao": ("Fisher-Rao norm, the root of w'Fw", "", False),
    "lambda_max_chc": ("largest eigenvalue of CHC, C = diag|w|", "", False),
    "trace_chc": ("trace of CHC, C = diag|w|", "", True),
    "relative_flatness": ("relative flatness of one layer (large: sharp)", "", True),
}
# A setting that makes another quantity of a measure -> what its name in the file then ends in, by value.
_VARIANTS: dict[str, dict[Any, str]] = {
    "adaptive": {True: "adaptive", False: "plain"},
    "variant": {"elementwise": "elementwise"},
    "magnitude_aware": {True: "magnitude"},
    "norm": {"linf": "linf"},
    "kind": {"max": "max", "exact": "exact", "mc": "mc"},
    "normalise_logits": {True: "normalised"},
}
_CHOICES = {
    ("asam", "variant"): ("authors", "elementwise"),
    ("fisher_rao", "kind"): ("empirical", "exact", "mc"),
    ("keskar", "norm"): ("linf",),
    ("relative_flatness", "kind"): ("trace", "max"),
}
# Nothing is drawn in these, and the standard error over draws is 0; in Keskar's, the subspaces are.
_NOT_DRAWN = frozenset({"m_sharpness", "asam", "worst_case"})
_COUNTS = ("m", "group", "subspace", "iterations", "steps")


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A measure with its settings.

    Attributes:
        measure: Its name in `landscape.sharpness`.
        name: The name of its variable.
        settings: What it is called with, besides objective and seed.
        normalised: Whether the scores are brought to one scale first (`normalised_logits`).
    """

    measure: str
    name: str
    settings: dict[str, Any]
    normalised: bool

    @property
    def rung(self) -> str:
        """The setting that is a ladder here; empty where none is."""
        rung = _KINDS[self.measure][1]
        return rung if rung and np.ndim(self.settings.get(rung, 0.0) or 0.0) else ""

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of the function."""
        return inspect.signature(getattr(sharpness, self.measure)).parameters

    def variables(self) -> list[Variable]:
        """Return its variables: the value, and the standard errors that there are."""
        text, _, has_error = _KINDS[self.measure]
        given = ", ".join(f"{key} = {value}" for key, value in self.settings.items() if key != self.rung)
        dims = (f"{self.rung}_{self.name}",) if self.rung else ()
        variables = [Variable(self.name, dims, description=f"{text}; {given}" if given else text)]
        if has_error:
            variables.append(Variable(f"{self.name}_stderr", dims, description=f"standard error of {self.name}"))
        return [*variables, over_examples(self.name, dims)]

    def coordinates(self) -> list[Coordinate]:
        """Return the coordinate of its ladder, where it has one."""
        if not self.rung:
            return []
        values = rungs(self.settings[self.rung], self.rung)
        return [Coordinate(f"{self.rung}_{self.name}", values, description=f"{self.rung} of {self.name}")]

    def scalars(self) -> list[str]:
        """Return the variables that are single numbers and worth a look: a standard error only where it is not 0."""
        if self.rung:
            return []
        exact = self.measure in _NOT_DRAWN or (self.measure == "keskar" and self.settings.get("subspace") is None)
        return [self.name] if exact or not _KINDS[self.measure][2] else [self.name, f"{self.name}_stderr"]

    def described(self) -> dict[str, Any]:
        """Return measure, name and settings as plain values."""
        own = {"measure": self.measure, "name": self.name, **self.settings}
        return own | ({"normalise_logits": True} if self.normalised else {})

    def row(self, objective: Objective, operator: SymmetricOperator | None, seed: int) -> dict[str, Any]:
        """Take the measure; `operator` is the Hessian, shared by those that need it."""
        more: dict[str, Any] = {"seed": seed} if "seed" in self.parameters else {}
        if self.normalised:
            objective = sharpness.normalised_logits(objective)
        elif self.takes_operator:
            more["operator"] = operator
        found = getattr(sharpness, self.measure)(objective, **(more | self.settings))
        row = {self.name: found.value, f"{self.name}_stderr_sample": found.stderr_sample}
        return row | ({f"{self.name}_stderr": found.stderr} if _KINDS[self.measure][2] else {})

    @property
    def takes_operator(self) -> bool:
        """Whether it stands on the Hessian of the objective itself."""
        return "operator" in self.parameters and not self.normalised


def read(measures: Iterable[Any], defaults: Mapping[str, Mapping[str, Any]]) -> list[Recorded]:
    """Read what a user asks for.

    Args:
        measures: Names; pairs (name, settings); or mappings {name: settings}, as YAML has them.
        defaults: Settings by measure that hold where the user gives none.

    Returns:
        The measures, in order.

    Raises:
        ValueError: A measure or setting is unknown or out of range, or two would stand under one name.
    """
    found: list[Recorded] = []
    for entry in measures:
        measure, given = _pair(entry)
        recorded = _read_one(measure, {**defaults.get(measure, {}), **given})
        if recorded.name in {other.name for other in found}:
            raise ValueError(
                f"two measures would be recorded as {recorded.name!r}; give one of them a name of its own: "
                f"({measure!r}, {{..., 'name': '{recorded.name}_2'}}), or one of them a ladder of radii"
            )
        found.append(recorded)
    if not found:
        raise ValueError(f"measures is empty; give at least one of {', '.join(_KINDS)}")
    return found


def _pair(entry: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and len(entry) == 1:
        (entry,) = entry.items()
    if isinstance(entry, Sequence) and len(entry) == 2 and isinstance(entry[0], str):
        if entry[1] is None:
            return entry[0], {}
        if isinstance(entry[1], Mapping):
            return entry[0], dict(entry[1])
    raise ValueError(
        f"{entry!r} is no measure; give a name, a pair such as ('worst_case', {{'rho': 0.1}}), or a mapping"
    )


def _read_one(measure: str, settings: dict[str, Any]) -> Recorded:
    if measure not in _KINDS:
        raise ValueError(unknown_argument("Sharpness", measure, _KINDS, "measure"))
    name = settings.pop("name", None)
    normalised = bool(settings.pop("normalise_logits", False))
    recorded = Recorded(measure, "", settings, normalised)
    known = [key for key in recorded.parameters if key not in ("objective", "operator")]
    if unknown := [key for key in settings if key not in known]:
        raise ValueError(unknown_argument(measure, unknown[0], [*known, "name", "normalise_logits"], "setting"))
    _check(measure, settings)
    if recorded.rung:  # as plain numbers, whatever sequence was given
        settings[recorded.rung] = rungs(settings[recorded.rung], recorded.rung)
    return dataclasses.replace(recorded, name=name or _name(recorded))


def _name(recorded: Recorded) -> str:
    """Name a variable by what it is: a plain average case must not stand where an adaptive one is looked for."""
    effective = {key: parameter.default for key, parameter in recorded.parameters.items()}
    given = recorded.settings | {"normalise_logits": recorded.normalised}
    changed = {key: given[key] for key in _VARIANTS if key in given and given[key] != effective.get(key)}
    words = [_VARIANTS[key][value] for key, value in changed.items() if value in _VARIANTS[key]]
    words += ["subspace"] if given.get("subspace") else []
    return "_".join([recorded.measure, *words])


def _check(measure: str, settings: Mapping[str, Any]) -> None:
    rung = _KINDS[measure][1]
    if rung and settings.get(rung) is not None:
        rungs(settings[rung], rung)
    counts(1, **{key: settings[key] for key in _COUNTS if key in settings})
    at_least(0, **{key: settings[key] for key in ("eta", "epsilon") if key in settings})
    positive(**{key: settings[key] for key in ("tol",) if key in settings})
    if "draws" in settings:
        counts(2 if measure in ("average_case", "pac_bayes") else 1, draws=settings["draws"])
    if "norm" in settings:
        one_of(NORMS, norm=settings["norm"])
    for (owner, key), choices in _CHOICES.items():
        if owner == measure and key in settings:
            one_of(choices, **{key: settings[key]})
