"""Decide how the losses of single batches make the mean over all examples.

The loss functions that a step calls claim what the loss divides by. Evaluations of cut and joined batches check the
claims, and where they disagree the evaluations win.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Sequence

from landscape._additivity import Experiment
from landscape._claims import BY_TARGET, DIVISORS, claimed, constant, kind_of, shares
from landscape._errors import MeasurementError
from landscape._examples import Reading, outside
from landscape._trials import NOISY, PRECISE, Look, Trial, share_of

# The present weights are point 0, disturbed ones have other numbers.
_PRESENT, _DISTURBED, _ALL = (0,), (1,), (0, 1, 2)
# Readings of the batches that are tried before a loss is taken for no mean over examples.
_READINGS = 3


class Watch(enum.Enum):
    """What has to be watched in later evaluations to know the error rate."""

    NOTHING = "nothing"  # no loss here knows classes
    LOSS = "loss"  # all calls come from the loss function that the objective was given
    STEP = "step"


class NoTargets(MeasurementError):
    """Nothing in the batches counts: every target is ignored, has weight 0, or the step skips every batch."""


@dataclasses.dataclass(frozen=True)
class Weighting:
    """What the loss of a batch divides by.

    Attributes:
        kind: "examples", "targets" (unignored ones), "weights" (class weights, masks, or what the user says), or
            "batches" where the loss is no mean over anything: then the batches count equally, as they are.
        divisor: Where the divisors come from: "examples", "mean", "sum", "none" (the calls of that reduction),
            "given", "measured" or "batches".
        summed: Whether the loss of a batch is a sum, which is then divided here.
        constant: What the step divides its sum by, a number that does not depend on the batch.
        flattened: Whether a reading with flattened tensors was found to hold.
        evidence: How this was found, in a sentence.
    """

    kind: str
    divisor: str
    summed: bool = False
    constant: float = 1.0
    evidence: str = ""
    flattened: bool = False

    @property
    def by_hand(self) -> bool:
        """Whether the step masks or weights its examples itself."""
        return self.kind == "weights" and self.divisor in ("measured", "batches")


@dataclasses.dataclass(frozen=True)
class Weighed:
    """The batches' part in the mean.

    Attributes:
        weighting: What their losses divide by.
        reading: Where their examples lie.
        weights: Weight of each batch in the mean; they sum to 1.
        scales: A factor on the loss of each.
        sizes: Number of examples in each; 0 where the step skips it.
        watch: What to watch in later evaluations.
    """

    weighting: Weighting
    reading: Reading
    weights: list[float]
    scales: list[float]
    sizes: list[int]
    watch: Watch


def weigh(
    readings: Sequence[Reading],
    looks: Sequence[Look],
    experiment: Callable[[Reading, bool], Experiment],
    tol: float,
    noisy: bool,
    given: Sequence[float] | None = None,
    known: Weighting | None = None,
) -> Weighed:
    """Find what the losses divide by, and the weight of each batch in the mean.

    Args:
        readings: Possible readings of the batches, the likeliest first.
        looks: The first evaluation of each batch.
        experiment: Makes the experiment of a reading; in float64 where the second argument says so.
        tol: Rounding of losses, relative to their size.
        noisy: Whether the loss draws random numbers, which other cuts of a batch draw differently.
        given: What each batch divides by, where the user says so.
        known: What the same loss was found to divide by on other batches.

    Returns:
        The weights, with the evidence.

    Raises:
        NoTargets: No batch counts.
    """
    counted = [look for look in looks if look.loss is not None and DIVISORS["mean"](look, 1) != 0]
    # A mean over nothing is NaN where whoever wrote the loss masks examples by hand.
    if not counted or (known is not None and known.by_hand and all(look.loss != look.loss for look in counted)):
        raise NoTargets(_NOTHING)
    if noisy or given is not None or (known is not None and not known.flattened):
        readings = [reading for reading in readings if not reading.flattened]  # nothing checks them here
    reading, measured = readings[0], None
    if given is None and sum(reading.counts) == 1:
        known = Weighting("examples", "examples", evidence="there is one example, so sum and mean are the same")
    if given is not None:
        weighting = Weighting("weights", "given", evidence="batch_weight, as given")
    elif known is not None and known.divisor != "measured":
        weighting = known
    else:
        weighting, reading, measured = _found(readings, looks, experiment, NOISY if noisy else tol)
    counts = reading.counts
    divisors = given if weighting.divisor == "given" and given is not None else measured
    if divisors is None:
        divide = DIVISORS[weighting.divisor]
        divisors = [divide(look, count) or 0.0 for look, count in zip(looks, counts, strict=True)]
    shares = [0.0 if look.loss is None else float(d) for look, d in zip(looks, divisors, strict=True)]
    total = sum(shares)
    if not total > 0:
        raise NoTargets(_NOTHING)
    summed, constant = weighting.summed, weighting.constant
    scales = [constant / share if summed and share else 0.0 if summed else 1.0 for share in shares]
    weighting = dataclasses.replace(weighting, kind=kind_of(weighting.divisor, shares, counts))
    sizes = [0 if look.loss is None else count for look, count in zip(looks, counts, strict=True)]
    return Weighed(weighting, reading, [share / total for share in shares], scales, sizes, _watch(looks))


def _found(
    readings: Sequence[Reading], looks: Sequence[Look], experiment: Callable[[Reading, bool], Experiment], tol: float
) -> tuple[Weighting, Reading, list[float] | None]:
    """Try the readings one after the other; return the weighting, its reading, and divisors that were measured."""
    first: list[Trial] = []
    for number, reading in enumerate(readings[:_READINGS]):
        made = experiment(reading, False)
        # A less likely reading must hold for every tensor, and be seen in a cut.
        if number and (not first or any(outside(batch, reading.plan) is not None for batch in made.batches)):
            continue
        # Where all losses are equal, as at the beginning, wrong runs agree at the present weights too.
        points = _PRESENT + _DISTURBED if reading.flattened else _PRESENT
        trials = [trial for trial in made.trials(points) if not number or trial.rest is not None]
        first = first or trials
        again = functools.partial(made.trials, _DISTURBED)
        weighting = _explained(trials, again, looks, reading.counts, tol)
        if weighting is not None:
            return dataclasses.replace(weighting, flattened=reading.flattened), reading, None
    if any(reading.flattened for reading in readings):
        return _found([reading for reading in readings if not reading.flattened], looks, experiment, tol)
    reading = readings[0]
    if not first:
        return _unchecked(looks), reading, None
    if tol < NOISY:
        # Differences of losses lose digits. Models that do not run in float64 are measured as they are.
        measured = _measured(experiment(reading, True), PRECISE) or _measured(experiment(reading, False), tol)
        if measured is not None:
            evidence = "measured by joining batches: the loss is a mean with weights of its own"
            return Weighting("weights", "measured", evidence=evidence), reading, measured
    return Weighting("batches", "batches", evidence=_COMPARES), reading, None


def _explained(
    trials: Sequence[Trial],
    again: Callable[[], Sequence[Trial]],
    looks: Sequence[Look],
    counts: Sequence[int],
    tol: float,
) -> Weighting | None:
    """Find the claim that the trials agree with.

    Args:
        trials: At the present weights.
        again: Makes trials at disturbed weights. They decide where the present ones agree with several claims, as they
            do when all examples have the same loss.
        looks: The first evaluation of each batch.
        counts: Number of examples in each.
        tol: Rounding of losses.

    Returns:
        The weighting; None where no claim holds.
    """
    claims = [name for name in ("mean", "sum", "none", "examples") if claimed(name, looks, counts)]
    holding = [name for name in claims if trials and all(trial.is_mean(DIVISORS[name], tol) for trial in trials)]
    summed = bool(trials) and all(trial.is_sum(tol) for trial in trials)
    if summed + len({shares(trials, name) for name in holding}) > 1:
        further = again()
        telling = any(trial.telling(tol) for trial in trials)
        kept = [name for name in holding if all(trial.is_mean(DIVISORS[name], tol) for trial in further)]
        still = summed and all(trial.is_sum(tol) for trial in further)
        # Chaotic networks have no exact losses off their weights; then the present ones must tell.
        holding, summed = (kept, still) if kept or still or not telling else (holding, summed)
    if holding:
        return Weighting("examples", holding[0], evidence=_checked("a mean", trials, tol))
    if not summed:
        return None
    # A summed classification divides by its targets, other sums by their examples.
    calls = [call for look in looks for call in look.calls]
    classified = bool(calls) and all(call.reduction == "sum" and call.name in BY_TARGET for call in calls)
    nominal, words = constant(looks, counts)
    evidence = _checked(f"a sum{words}", trials, tol)
    return Weighting("examples", "sum" if classified else "examples", True, nominal, evidence)


def _checked(kind: str, trials: Sequence[Trial], tol: float) -> str:
    pieces = "joined with itself" if trials[0].rest is None else "cut and joined"
    rounding = "within the noise of the model" if tol >= NOISY else f"to {tol:.0e}"
    return f"{kind}, checked {rounding} on a batch that was {pieces}"


def _unchecked(looks: Sequence[Look]) -> Weighting:
    """Believe the calls where nothing can be cut or joined, if all of them say the same."""
    calls = [call for look in looks for call in look.calls]
    why = "the batches can be neither cut nor joined"
    named = all(DIVISORS["mean"](look, 0) is not None for look in looks if look.loss is not None)
    if calls and named and {call.reduction for call in calls} == {"mean"}:
        return Weighting("targets", "mean", evidence=f"the loss functions called; not checked, since {why}")
    return Weighting("batches", "batches", evidence=f"unknown, since {why}")


def _measured(experiment: Experiment, tol: float) -> list[float] | None:
    """Measure the divisors of all batches, relative to that of one, by joining each with it.

    Returns:
        The divisors; None where the loss is no mean with weights that depend on the examples alone.
    """
    shares: dict[int, list[tuple[float, float]]] = {}  # by the way of cutting
    for trial in experiment.trials(_ALL):
        share = trial.share(tol)
        shares.setdefault(trial.way, []).extend([share] if share is not None else [])
    if any(abs(a - b) > e + f for found in shares.values() for a, e in found for b, f in found):
        return None
    if max((len(found) for found in shares.values()), default=0) < 2:
        return None
    used = [index for index, look in enumerate(experiment.looks) if look.loss is not None and look.loss == look.loss]
    divisors = [0.0] * len(experiment.looks)
    divisors[used[0]] = 1.0
    for index in used[1:]:
        found = [
            share_of(looks[0].loss, looks[1].loss, looks[2].loss, tol)  # type: ignore[arg-type]
            for looks in (experiment.union(index, used[0], point) for point in _ALL)
            if looks is not None
        ]
        best = min((share for share in found if share is not None), key=lambda share: share[1], default=None)
        if best is None:
            return None
        divisors[index] = best[0] / (1 - best[0])
    return divisors


def _watch(looks: Sequence[Look]) -> Watch:
    if not any(look.classifies for look in looks):
        return Watch.NOTHING
    return Watch.STEP if any(look.elsewhere for look in looks) else Watch.LOSS


_NOTHING = (
    "every target of the measurement batches is ignored or has weight 0, so the mean loss is undefined; measure "
    "batches with some counted targets"
)
_COMPARES = (
    "the loss of a batch is neither a mean nor a sum over its examples: it compares examples with each other, or adds "
    "terms that divide by different numbers"
)
