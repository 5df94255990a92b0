"""What a certificate claims, and the arithmetic of the claim. Torch-free: the analysis reads certificates too."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from landscape._results import Result
from landscape.bounds import charge_bits, countable_bound
from landscape.certificates._format import pack, write
from landscape.certificates._statement import statement

# A claim is rounded up to so many decimals: another machine's logarithm may differ in its last bit.
_DECIMALS = 6


@dataclasses.dataclass(frozen=True)
class Certificate(Result):
    """A bound on the error rate of one network on new examples, with all that is needed to check it.

    Attributes:
        bound: The claim: with probability 1 − δ over the n examples, the error rate on new ones is at most this.
        wrong: How many of the n examples the decoded network gets wrong.
        n: Number of examples.
        delta: δ.
        method: Which inequality (`countable_bound`).
        choices: What was chosen by looking at the examples and is not in the payload: the number of alternatives of
            each choice, by name. Charged log2 each.
        classes: Number of classes, None where it is not known.
        payload: The network as a self-delimiting stream of bytes, every bit of it counted.
        codec: How the payload decodes: settings by name. Fixed before, or named among the choices.
        architecture: What the network is decoded into: its tensors, its modules, a hash of the constructed tensors
            that decoding uses, and the constructor's settings.
        data: Fingerprint of the examples, and how many of them are equal to an earlier one.
        loss: By what the predictions were seen: the step or loss function.
        versions: Of the libraries that made it.
    """

    bound: float
    wrong: int
    n: int
    delta: float
    method: str
    choices: Mapping[str, int]
    classes: int | None
    payload: bytes = dataclasses.field(repr=False)
    codec: Mapping[str, Any]
    architecture: Mapping[str, Any] = dataclasses.field(repr=False)
    data: Mapping[str, Any]
    loss: str
    versions: Mapping[str, str]

    @property
    def error(self) -> float:
        """The decoded network's error rate on the n examples."""
        return self.wrong / self.n

    @property
    def payload_bits(self) -> int:
        """Length of the stream."""
        return 8 * len(self.payload)

    @property
    def charge_bits(self) -> float:
        """What the choices cost, Σ log2 K."""
        return charge_bits(*self.choices.values())

    @property
    def bits(self) -> float:
        """Everything that is counted: the stream and the charges."""
        return self.payload_bits + self.charge_bits

    @property
    def complexity(self) -> float:
        """What the bound adds to the error on the examples."""
        return self.bound - self.error

    @property
    def trivial(self) -> float:
        """The error rate of guessing, 1 − 1/classes, or 1 where the classes are not known."""
        return 1.0 if self.classes is None else 1 - 1 / self.classes

    @property
    def vacuous(self) -> bool:
        """Whether the bound says no more than what guessing achieves."""
        return self.bound >= self.trivial

    def statement(self) -> str:
        """Return the claim in words, with its parts and everything that it assumes."""
        return statement(self)

    def save(self, path: str | Path) -> None:
        """Write the certificate to a file (docs/file-format.md).

        Args:
            path: Where; by custom it ends in .lsc. An existing file is replaced.
        """
        write(self.to_bytes(), Path(path))

    def to_bytes(self) -> bytes:
        """Return the bytes of the file, the same for equal certificates."""
        return pack(self, self.payload)

    def to_dict(self) -> dict[str, Any]:
        """Return claim, parts and provenance by name as plain values, without the stream."""
        parts = ("error", "complexity", "bits", "payload_bits", "charge_bits", "trivial", "vacuous")
        fields = {name: value for name, value in super().to_dict().items() if name != "payload"}
        return fields | {name: getattr(self, name) for name in parts}


def claimable(*, wrong: int, n: int, payload_bits: int, delta: float, method: str, choices: Mapping[str, int]) -> float:
    """Compute the least bound that may be claimed, rounded up to six decimals.

    The four methods may be tried freely: for equal numbers the exact one is the least of them, so on the event that it
    holds they all hold, and δ is spent once.

    Args:
        wrong: Errors on the examples.
        n: Number of examples.
        payload_bits: Length of the self-delimiting stream.
        delta: δ.
        method: Of `countable_bound`.
        choices: Alternatives by name.

    Returns:
        The bound, 1 at most.

    Raises:
        ValueError: As of `countable_bound`; a count of errors below 0 or above n.
    """
    if n < 1:
        raise ValueError(f"n is {n}; a bound needs at least one example")
    if not 0 <= wrong <= n:
        raise ValueError(f"{wrong} of {n} examples are said to be wrong; expected a number from 0 to {n}")
    bound = countable_bound(
        error=wrong / n, n=n, bits=payload_bits, delta=delta, method=method, choices=list(choices.values()) or 1
    )
    return min(math.ceil(bound * 10**_DECIMALS + 1e-6) / 10**_DECIMALS, 1.0)


def best_of(certificates: Sequence[Certificate], choice: str) -> Certificate:
    """Take the certificate with the least bound, and charge it for the choice.

    Each of K networks may be certified alone at δ; the best of them, chosen by its bound, costs log2 K bits more.

    Args:
        certificates: The candidates, all of the same examples, at one δ. All that were tried count, not only those
            that came out well.
        choice: The name of the choice, such as "dimension".

    Returns:
        The best one, with `choice` among its choices and the bound computed anew.

    Raises:
        ValueError: There are none, they are of different examples or δ, or the choice is charged already.
    """
    if not certificates:
        raise ValueError("there are no certificates to choose from; give at least one")
    if len({(each.data["fingerprint"], each.delta) for each in certificates}) > 1:
        raise ValueError("the certificates are of different examples or δ; the best of them has no single guarantee")
    if any(choice in each.choices for each in certificates):
        raise ValueError(f"the choice {choice!r} is charged already; give this one another name")
    charged = [_charged(each, choice, len(certificates)) for each in certificates]
    return min(charged, key=lambda each: each.bound)


def _charged(certificate: Certificate, choice: str, count: int) -> Certificate:
    choices = dict(certificate.choices) | {choice: count}
    bound = claimable(
        wrong=certificate.wrong,
        n=certificate.n,
        payload_bits=certificate.payload_bits,
        delta=certificate.delta,
        method=certificate.method,
        choices=choices,
    )
    return dataclasses.replace(certificate, choices=choices, bound=bound)
