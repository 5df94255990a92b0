"""Record how few bits the network can be stored in during training."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from landscape._errors import MeasurementError
from landscape.callbacks._arguments import listed, one_of, positive
from landscape.callbacks._axes import on_axis, over_examples, tensor_labels
from landscape.callbacks._base import LandscapeCallback
from landscape.callbacks._effort import Work
from landscape.compression import Bits, bits, noise_radius, quantisation_law
from landscape.compression._families import FAMILIES
from landscape.compression._law import GRIDS
from landscape.compression._radii import PER
from landscape.objective import Objective
from landscape.record import Coordinate, Variable

_DEFAULT = "uniform-tensor"
_LOGGED = ("bits", "bits_per_parameter")
_PER_TOLERANCE = 4  # losses until the code at a tolerance is found
_RUNG, _STREAM = 2.0, 10.0  # codings that a tried code takes with its copies, and one that is written and decoded
_NOISE = 20  # losses of a noise radius at a tolerance, for each of its draws


class Compressibility(LandscapeCallback):
    """Bits of a code that really decodes, for a ladder of allowed rises of the training loss.

    Group `compressibility`. For each tolerance the weights are coded as coarsely as the loss allows (by default rounded
    to a uniform grid with a step per tensor), entropy-coded, decoded, and the loss is that of the decoded weights. See
    `landscape.compression.bits`.

    Args:
        tolerances: Allowed rises of the training loss, in nats.
        family: The family of codes; or a list of families, recorded along a dimension `family`.
        noise_radius: Also measure the noise that the weights stand, and its bits-back length: relative to each
            "weight", "filter" or "tensor"; True for "filter". Hundreds of evaluations of the loss. See
            `landscape.compression.noise_radius`.
        law: Also record what the quantisation law foretells, from the curvature of each tensor: tens of products with
            the Hessian a tensor. See `landscape.compression.quantisation_law`.
        every_n_epochs: Measure at the end of every n-th epoch; every epoch where no cadence is given.
        every_n_steps: Measure after every n-th optimizer step; with every_n_epochs too, at both.
        **common: Arguments of `LandscapeCallback`: examples, batch_size, path, on_error, mode, weights, noise_seed,
            seed, batches, parameters, log, name, overhead.
    """

    group = "compressibility"
    default_every_n_epochs = 1
    description = "length of the shortest decodable code of the weights at an allowed rise of the training loss"

    def __init__(
        self,
        tolerances: Sequence[float] = (0.003, 0.01, 0.03, 0.1, 0.3),
        family: str | Sequence[str] = _DEFAULT,
        noise_radius: bool | str = False,
        law: bool = False,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        **common: Any,
    ):
        super().__init__(every_n_epochs=every_n_epochs, every_n_steps=every_n_steps, **common)
        self.families = (family,) if isinstance(family, str) else tuple(family)
        if not self.families or len(set(self.families)) < len(self.families):
            raise ValueError(f"family is {family!r}; give one family of codes, or a list of different ones")
        for name in self.families:
            one_of(list(FAMILIES), family=name)
        listed(tolerances=tolerances)
        if not len(tolerances):
            raise ValueError("tolerances is empty; give at least one allowed rise of the training loss")
        for tolerance in tolerances:
            positive(tolerance=tolerance)
        one_of((*PER, True, False), noise_radius=noise_radius)  # type: ignore[arg-type]
        if law and not any(name in GRIDS for name in self.families):
            raise ValueError(
                f"law=True needs a family of uniform grids, and family is {family!r}; add {next(iter(GRIDS))!r}"
            )
        self.tolerances = tuple(tolerances)
        self.family = family if isinstance(family, str) else list(family)
        self.noise_radius, self.law = noise_radius, law
        self._room = self.tolerances
        self._tensors: tuple[str, ...] = ()
        # Of other families the knob is no step.
        self._kept = self.families
        self._knob = "relative_step" if self.families[0] in GRIDS and isinstance(family, str) else "knob"

    def settings(self) -> dict[str, Any]:
        """Return the settings of the measure."""
        names = ("tolerances", "family", "noise_radius", "law")
        return {name: getattr(self, name) for name in names}

    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the logged scalars: bits of the first family, with the middle tolerance in the name.

        At the default tolerances they are `bits_0.03` and `bits_per_parameter_0.03`. A family other than the default
        stands before the tolerance.
        """
        family = "" if self.families[0] == _DEFAULT else f"_{self.families[0]}"
        return tuple(f"{name}{family}_{self.tolerances[self._middle]:g}" for name in _LOGGED)

    def logged(self, measured: Mapping[str, Any]) -> dict[str, float]:
        """Return the logged scalars at the middle tolerance, of the first family."""
        known = {name: np.atleast_2d(measured[name])[0, self._middle] for name in _LOGGED if name in measured}
        return {key: known.get(name, np.nan) for key, name in zip(self.scalar_names(), _LOGGED, strict=True)}

    @property
    def _middle(self) -> int:
        return len(self.tolerances) // 2

    def forms(self) -> list[dict[str, Any]]:
        """Return the forms: as asked; without noise radius and law; the middle tolerance and the first family alone."""
        fewer: dict[str, Any] = {"noise_radius": False} if self.noise_radius else {}
        fewer |= {"law": False} if self.law else {}
        least = dict(fewer)
        if len(self.tolerances) > 1:
            least["tolerances"] = (self.tolerances[self._middle],)
        if len(self.families) > 1:
            least |= {"_kept": self.families[:1], "_words": f"family={self.families[0]}"}
        return [{}, fewer, least]

    def work(self) -> Work:
        """Return the expected work of one event."""
        count, kept = len(self.tolerances), len(self._kept)
        codings = _RUNG * (2 + 3 * count) + _STREAM * count
        work = Work(evaluations=kept * (3.0 + _PER_TOLERANCE * count), codings=kept * codings, vectors=3)
        if self.noise_radius:
            work += Work(evaluations=_NOISE * 4.0 * len(self.tolerances))
        return work + (Work(products=30.0 * max(len(self._tensors), 1)) if self.law else Work())

    def schema(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return variables and coordinates of the group."""
        each = ("tolerance",)
        along = each if isinstance(self.family, str) else ("family", *each)
        step = "step of the grid over the rms of each tensor" if self._knob == "relative_step" else "the family's knob"
        variables = [
            Variable("bits", along, units="bit", description="length of the stream that was decoded: complexity"),
            Variable("ideal_bits", along, units="bit", description="its length under the code's probabilities"),
            Variable("bits_per_parameter", along, units="bit", description="bits over the number of parameters"),
            Variable("loss_rise", along, description="rise of the loss with the decoded weights"),
            over_examples("loss_rise", along),
            Variable(self._knob, along, description=step),
            Variable("reached", along, "i1", description="1 where some code stays within the tolerance"),
            Variable("tensor_bits", (*along, "tensor"), units="bit", description="share of each tensor in ideal_bits"),
        ]
        if self.noise_radius:
            variables += [
                Variable("noise_radius", each, description="noise, in units of c, that raises the mean loss so far"),
                Variable("noise_radius_stderr", each, description="its standard error over draws"),
                over_examples("noise_radius", each),
                Variable("bits_back", each, units="bit", description="bits-back length of weights with that noise"),
            ]
        if self.law:
            variables += [
                Variable("law_curvature", description="trace of the Hessian in units of each tensor's rms"),
                Variable("law_curvature_stderr", description="its standard error"),
                Variable(
                    "predicted_step", each, description="relative step at which the quantisation law rises so far"
                ),
                Variable("predicted_step_stderr", each, description="its standard error"),
            ]
        self._tensors = tensor_labels(module)
        coordinates = [
            Coordinate("tolerance", self.tolerances, "nat", "allowed rise of the training loss"),
            Coordinate(
                "tensor", self._tensors, description="qualified name of the tensor; NaN where it does not train"
            ),
        ]
        if not isinstance(self.family, str):
            coordinates.append(Coordinate("family", self.families, description="family of codes"))
        return {"variables": variables, "coordinates": coordinates}

    def measure(self, objective: Objective, held_out: Objective | None, trainer: Any) -> Mapping[str, Any]:
        """Measure the bits at the present weights."""
        parts, curves = self.parts(objective), dict[str, Bits]()

        def code(family: str) -> dict[str, Any]:
            curves[family] = bits(objective, family, self.tolerances)
            return {}

        for family in self._kept:
            parts.take(family, functools.partial(code, family))
        parts.row |= self._columns(curves, objective.layout.names)
        if self.noise_radius:
            parts.take("noise_radius", lambda: self._noise_row(objective))
        if self.law:
            parts.take("law", lambda: self._law_row(objective, curves))
        return parts.result()

    def _columns(self, curves: Mapping[str, Bits], tensors: Sequence[str]) -> dict[str, Any]:
        """Return the columns of all families; those of one that failed are NaN."""
        if not curves:
            return {}

        def column(name: str, missing: float = np.nan) -> np.ndarray:
            like = np.asarray(getattr(next(iter(curves.values())), name))
            empty = np.full(like.shape, missing)
            values = [np.asarray(getattr(curves[one], name)) if one in curves else empty for one in self.families]
            return values[0] if isinstance(self.family, str) else np.stack(values)

        names = ("bits", "ideal_bits", "bits_per_parameter", "loss_rise", "loss_rise_stderr_sample", "tensor_bits")
        columns = {name: column(name) for name in names}
        columns["tensor_bits"] = on_axis(columns["tensor_bits"], tensors, self._tensors)
        columns |= {self._knob: column("knob"), "reached": column("reached", missing=-1).astype(np.int8)}
        axis = 0 if isinstance(self.family, str) else 1
        return {name: self._at_tolerances(values, axis) for name, values in columns.items()}

    def _at_tolerances(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Put values at the tolerances measured now where the group was declared with more of them."""
        if self.tolerances == self._room:
            return values
        moved = np.moveaxis(values, axis, 0)
        spread = np.full((len(self._room), *moved.shape[1:]), -1 if moved.dtype.kind == "i" else np.nan)
        spread[[self._room.index(tolerance) for tolerance in self.tolerances]] = moved
        return np.moveaxis(spread, 0, axis).astype(values.dtype)

    def _noise_row(self, objective: Objective) -> dict[str, Any]:
        per = "filter" if self.noise_radius is True else str(self.noise_radius)
        noise = noise_radius(objective, self.tolerances, per, seed=self.seed)
        errors = {"noise_radius_stderr": noise.stderr, "noise_radius_stderr_sample": noise.stderr_sample}
        return {"noise_radius": noise.sigma, **errors, "bits_back": noise.bits}

    def _law_row(self, objective: Objective, curves: Mapping[str, Bits]) -> dict[str, Any]:
        grid = next((curve for family, curve in curves.items() if family in GRIDS), None)
        if grid is None:
            raise MeasurementError("the law needs the bits of a uniform grid, which could not be measured")
        law = quantisation_law(objective, grid, seed=self.seed)
        row = {"law_curvature": law.curvature, "law_curvature_stderr": law.curvature_stderr}
        return row | {"predicted_step": law.predicted_knob, "predicted_step_stderr": law.predicted_knob_stderr}
