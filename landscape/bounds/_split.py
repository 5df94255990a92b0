"""A prior that learns from some of the examples, and a bound on the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from landscape._results import Result
from landscape.bounds._countable import countable_bound
from landscape.bounds._inputs import require_examples
from landscape.bounds._pac_bayes import pac_bayes_bound


@dataclasses.dataclass(frozen=True)
class PriorSplit(Result):
    """Which examples a prior may be trained on, and which a bound counts.

    Attributes:
        prior: Indices of the examples for the prior: its mean, its width, a reference network to code differences from.
        bound: Indices of the examples of the bound, all others. The posterior may use both.
        seed: Seed of the permutation.
    """

    prior: npt.NDArray[np.int64]
    bound: npt.NDArray[np.int64]
    seed: int

    @property
    def n(self) -> int:
        """Number of examples of the bound."""
        return len(self.bound)

    def error(self, wrong: Any) -> float:
        """Return the mean over the examples of the bound alone.

        Args:
            wrong: 1 for a wrong answer and 0 for a right one (or a loss in [0, 1]) for each of **all** examples, in
                their order; shape (examples,), or (draws, examples) of several sampled networks.

        Returns:
            The error rate.

        Raises:
            ValueError: The number of examples is not that of the split.
        """
        values = np.asarray(wrong, dtype=np.float64)
        total = len(self.prior) + len(self.bound)
        if values.ndim not in (1, 2) or values.shape[-1] != total:
            raise ValueError(f"the errors have the shape {values.shape}; expected one for each of {total} examples")
        return float(values[..., self.bound].mean())

    def pac_bayes_bound(self, wrong: Any, *, kl: float, delta: float, **settings: Any) -> float:
        """Bound the posterior's error rate on the examples that the prior has not seen.

        Args:
            wrong: As for `error`. Several sampled networks count as draws, unless `draws` is given.
            kl: KL(Q‖P) in nats, P the prior trained on the prior's part.
            delta: δ, the probability of failure.
            **settings: method, choices, draws, draws_delta of `pac_bayes_bound`.

        Returns:
            The bound.
        """
        values = np.asarray(wrong)
        if values.ndim == 2:
            settings.setdefault("draws", len(values))
        return pac_bayes_bound(error=self.error(values), kl=kl, n=self.n, delta=delta, **settings)

    def countable_bound(
        self, wrong: Any, *, bits: float, delta: float, method: str = "kl", choices: int | Sequence[int] = 1
    ) -> float:
        """Bound the error rate of one network that was coded relative to what the prior's part has taught.

        Args:
            wrong: As for `error`, of one network.
            bits: Length of the code, given the network (or table of probabilities) learned from the prior's part.
            delta: δ, the probability of failure.
            method: As for `countable_bound`.
            choices: As for `countable_bound`.

        Returns:
            The bound.
        """
        return countable_bound(
            error=self.error(wrong), n=self.n, bits=bits, delta=delta, method=method, choices=choices
        )


def prior_split(n: int, share: float = 0.5, seed: int = 0) -> PriorSplit:
    """Split the examples in two, before anything has been seen: some for a prior, the others for a bound.

    A bound holds for any prior that does not depend on its examples. So the prior may be trained on ⌊n · share⌋
    examples, at the price of n(1 − share) instead of n in the bound. Only the seed decides who goes where; trying
    several splits and keeping the best is a choice (`choices`).

    Args:
        n: Number of all examples.
        share: The part that goes to the prior, between 0 and 1.
        seed: Seed of the permutation.

    Returns:
        The two sets of indices, each in ascending order.

    Raises:
        ValueError: n is less than 2, or one of the parts is empty.

    Source: Ambroladze et al. 2007; Dziugaite et al. 2021, arXiv:2006.10929 (data-dependent priors).
    """
    n = require_examples(n)
    size = int(n * share) if 0 < share < 1 else 0
    if size == 0:
        raise ValueError(
            f"a share of {share} of {n} examples leaves the prior or the bound with none; expected a number between 0 "
            "and 1 that gives both at least one"
        )
    order = np.random.default_rng(seed).permutation(n)
    return PriorSplit(prior=np.sort(order[:size]), bound=np.sort(order[size:]), seed=seed)
