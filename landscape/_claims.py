"""What the calls of loss functions claim that a loss divides by."""

from __future__ import annotations

from collections.abc import Sequence

from landscape._trials import Divisor, Look, Trial

BY_TARGET = ("cross_entropy", "nll_loss")


def _of_calls(reduction: str) -> Divisor:
    """Return what the calls of a reduction divide by, where they agree on it."""

    def divide(look: Look, count: int) -> float | None:
        found = {call.divisor for call in look.calls if call.reduction == reduction}
        return found.pop() if len(found) == 1 else None

    return divide


DIVISORS: dict[str, Divisor] = {
    "mean": _of_calls("mean"),
    "sum": _of_calls("sum"),
    "none": _of_calls("none"),
    "examples": lambda look, count: float(count),
    "batches": lambda look, count: 1.0,
}


def constant(looks: Sequence[Look], counts: Sequence[int]) -> tuple[float, str]:
    """Return the number that a step divides its sum by, where the size of a batch stands in the step as a constant."""
    for look in looks:
        divisors = [call.divisor for call in look.calls if call.reduction == "sum"]
        for factor, divisor in zip(look.factors, divisors, strict=False):
            for candidate in (float(max(counts)), divisor):
                if candidate and candidate > 1 and abs(factor * candidate - 1) < 1e-4:
                    return candidate, f" that the step divides by the constant {candidate:g}"
    return 1.0, " over examples"


def kind_of(divisor: str, shares: Sequence[float], counts: Sequence[int]) -> str:
    if divisor in ("given", "measured"):
        return "weights"
    if divisor == "batches":
        return "batches"
    used = [(share, count) for share, count in zip(shares, counts, strict=True) if share and count]
    each = {round(share / count, 9) for share, count in used}
    if len(each) == 1 or divisor == "examples":
        return "examples"
    whole = all(float(share).is_integer() for share, _ in used)
    return "targets" if whole else "weights"


def claimed(name: str, looks: Sequence[Look], counts: Sequence[int]) -> bool:
    """Whether every batch has a divisor of this name."""
    used = [(look, count) for look, count in zip(looks, counts, strict=True) if look.loss is not None]
    return all(DIVISORS[name](look, count) is not None for look, count in used)


def shares(trials: Sequence[Trial], name: str) -> tuple[float, ...]:
    """Return the part's share in each trial by a claim, to tell claims apart."""
    return tuple(round(trial.claimed_share(DIVISORS[name]), 6) for trial in trials)
