"""Record the local learning coefficient during training."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from landscape._selection import modules
from landscape.callbacks._arguments import at_least, counts, one_of, positive
from landscape.callbacks._axes import layer_labels, on_axis
from landscape.callbacks._base import LandscapeCallback
from landscape.callbacks._effort import Work
from landscape.callbacks._parts import Parts
from landscape.objective import Objective
from landscape.record import Coordinate, Variable
from landscape.volume import LocalLearningCoefficient, learning_coefficient
from landscape.volume._flags import FLAGS
from landscape.volume._learning_coefficient import METHODS

_SCALARS = {
    "learning_coefficient": "nβ (mean loss over the chains − loss), chains tethered to the weights",
    "learning_coefficient_stderr": "its Monte-Carlo standard error, from the effective sample size",
    "rhat": "rank-normalised split R-hat of the chains' losses; 1 where they agree",
    "ess": "effective number of draws",
    "acceptance": "mean probability that a Metropolis test accepts a step",
    "equilibrium": "1 for chains that have reached the posterior's width in every direction, less before",
    "stiffness": "step times the largest curvature of the log posterior; chains diverge above 4",
    "gradient_noise": "variance that batches add to a step, over that of the injected noise",
    "nbeta": "inverse temperature nβ",
}
_LAYERS = [
    Variable("layer_learning_coefficient", ("layer",), description="the coefficient with all other layers held"),
    Variable("layer_learning_coefficient_stderr", ("layer",), description="its Monte-Carlo standard error"),
    Variable("layer_rhat", ("layer",), description="R-hat of its chains"),
    Variable("layer_flag", ("layer", "flag_name"), "i1", description="1 where this speaks against the layer's value"),
]


_TUNING = 60  # gradients spent on the step size
_DRAWS = 50  # of a chain in the smallest form


class LearningCoefficient(LandscapeCallback):
    """The local learning coefficient at the present weights, with the diagnostics of its chains.

    Group `learning_coefficient`. A complexity in units of parameters: half their number at a regular minimum, less
    where the loss is degenerate. It assumes a local minimum; far from one it may be negative, and the flag says so. See
    `landscape.volume.learning_coefficient`.

    Args:
        chains: Number of chains.
        draws: Recorded steps a chain; half as many come before as burn-in.
        gamma: Strength of the tether to the weights.
        method: "sgld", "rmsprop" or "mala".
        step_size: Step of the chains; found anew at every event where none is given.
        n: Number n of examples in nβ = n / ln n; by default the measured ones.
        layers: Measure every layer's weight-restricted coefficient too, by as many chains again for each.
        every_n_epochs: Measure at the end of every n-th epoch; every epoch where no cadence is given.
        every_n_steps: Measure after every n-th optimizer step; with every_n_epochs too, at both.
        **common: Arguments of `LandscapeCallback`: examples, batch_size, path, on_error, mode, weights, noise_seed,
            seed, batches, parameters, log, name, overhead.
    """

    group = "learning_coefficient"
    default_every_n_epochs = 1
    description = "local learning coefficient of the mean loss over the measured training examples"

    def __init__(
        self,
        chains: int = 2,
        draws: int = 200,
        gamma: float = 100.0,
        method: str = "sgld",
        step_size: float | None = None,
        n: int | None = None,
        layers: bool = False,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        **common: Any,
    ):
        super().__init__(every_n_epochs=every_n_epochs, every_n_steps=every_n_steps, **common)
        counts(1, chains=chains)
        counts(4, draws=draws)
        at_least(0, gamma=gamma)
        counts(2, n=n)
        one_of(METHODS, method=method)
        if step_size is not None:
            positive(step_size=step_size)
        self.chains, self.draws, self.gamma = chains, draws, gamma
        self.method, self.step_size, self.n, self.layers = method, step_size, n, layers
        self._room = draws
        self._layer_names: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """Return the settings of the measure."""
        names = ("chains", "draws", "gamma", "method", "step_size", "n", "layers")
        return {name: getattr(self, name) for name in names}

    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the logged scalars."""
        return ("learning_coefficient", "learning_coefficient_stderr", "rhat")

    def forms(self) -> list[dict[str, Any]]:
        """Return the forms: as asked; without layers; chains of 50 draws."""
        fewer: dict[str, Any] = {"layers": False} if self.layers else {}
        return [{}, fewer, fewer | ({"draws": _DRAWS} if self.draws > _DRAWS else {})]

    def work(self) -> Work:
        """Return the expected work of one event."""
        chains = 1 + (len(self._layer_names) if self.layers else 0)
        steps = chains * self.chains * 1.5 * self.draws
        full = self.method == "mala"
        own = Work(gradients=steps, vectors=4) if full else Work(batch_gradients=steps, vectors=4)
        return own + Work(batch_gradients=chains * _TUNING)

    def schema(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return variables and coordinates of the group."""
        step, self._layer_names = "step of the chains", layer_labels(module)
        about = "module that holds the parameters; empty for the outermost"
        named = Coordinate("layer", self._layer_names, description=about)
        return {
            "variables": [
                *(Variable(name, description=text) for name, text in _SCALARS.items()),
                Variable("step_size", description=step),
                Variable("by_chain", ("chain",), description="the coefficient from each chain alone"),
                Variable("excess_loss", ("chain", "draw"), "f4", description="rise of the loss at the chains' steps"),
                Variable("flag", ("flag_name",), "i1", description="1 where this speaks against the value"),
                *_LAYERS * self.layers,
            ],
            "coordinates": [
                Coordinate("chain", tuple(range(self.chains)), description="number of the chain"),
                Coordinate("draw", tuple(range(-(self.draws // 2), self.draws)), description="step; burn-in below 0"),
                Coordinate("flag_name", FLAGS, description="what may speak against the value"),
                *[named] * self.layers,
            ],
        }

    def measure(self, objective: Objective, held_out: Objective | None, trainer: Any) -> Mapping[str, Any]:
        """Measure the learning coefficient at the present weights."""
        parts = self.parts(objective)
        parts.take("learning_coefficient", lambda: self._whole(objective))
        if self.layers:
            self._take_layers(parts, objective)
        return parts.result()

    def _whole(self, objective: Objective) -> dict[str, Any]:
        found = self._coefficient(objective)
        own = {"learning_coefficient": found.value, "learning_coefficient_stderr": found.stderr}
        row: dict[str, Any] = {name: own[name] if name in own else getattr(found, name) for name in _SCALARS}
        row |= {
            "step_size": found.step_size,
            "by_chain": found.chains,
            "excess_loss": self._at_draws(found.trace),
            "flag": _flags(found),
        }
        return row

    def _at_draws(self, trace: np.ndarray) -> np.ndarray:
        """Put the draws of shorter chains at their numbers on the axis that the group was declared with."""
        if self.draws == self._room:
            return trace
        placed = np.full((len(trace), self._room + self._room // 2), np.nan)
        first = self._room // 2 - self.draws // 2
        placed[:, first : first + trace.shape[1]] = trace
        return placed

    def _coefficient(self, objective: Objective, parameters: list[str] | None = None) -> LocalLearningCoefficient:
        return learning_coefficient(
            objective,
            self.chains,
            self.draws,
            self.gamma,
            self.seed,
            method=self.method,
            step_size=self.step_size,
            n=self.n,
            parameters=parameters,
        )

    def _take_layers(self, parts: Parts, objective: Objective) -> None:
        names, found = objective.layout.names, dict[str, LocalLearningCoefficient]()
        held = modules(objective.layout)

        def layer(name: str) -> dict[str, Any]:
            found[name] = self._coefficient(objective, [names[index] for index in held[name]])
            return {}

        for name in held:
            parts.take(f"layer {name}" if name else "outermost layer", functools.partial(layer, name))

        def column(attribute: str) -> np.ndarray:
            return np.array([getattr(found[name], attribute) if name in found else np.nan for name in held])

        none = np.full(len(FLAGS), -1, dtype=np.int8)
        columns = {
            "layer_learning_coefficient": column("value"),
            "layer_learning_coefficient_stderr": column("stderr"),
            "layer_rhat": column("rhat"),
            "layer_flag": np.stack([_flags(found[name]) if name in found else none for name in held]),
        }
        labels = (list(held), self._layer_names)
        parts.row |= {name: on_axis(values, *labels, axis=0) for name, values in columns.items()}


def _flags(found: LocalLearningCoefficient) -> np.ndarray:
    return np.array([name in found.flags for name in FLAGS], dtype=np.int8)
