"""What a description costs beside its own bits: saying where it ends, and which of several was chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from landscape.bounds._inputs import UP, require_counts


def charge_bits(*choices: int | Sequence[int]) -> float:
    """Count the bits that choosing on the bounded examples costs.

    Σ log2 K_i: naming one of K settings takes log2 K bits, and a bound for the named one holds for all K at once.

    Whatever was selected by looking at the examples of the bound counts: the hyper-parameters, the codec's step, the
    index of the checkpoint, the number of seeds tried. What was fixed before does not.

    Args:
        *choices: The number of values that could have been chosen, for each choice made (or sequences of such).

    Returns:
        Bits, 0 for no choice.

    Raises:
        ValueError: A number of choices is not a whole number, or is less than 1.

    Source: the union bound; Lotfi et al. 2022, arXiv:2211.13609.
    """
    counts = [count for one in choices for count in require_counts(one, "choices")]
    # math.log2 takes integers beyond the range of floats.
    return math.fsum(math.log2(count) for count in counts) * UP


def prefix_free_bits(message: int) -> float:
    """Give a message that does not say where it ends the length of a self-delimiting one.

    b = C + 2 log2 C for a message of C bits; messages of less than 2 bits cost as much as one of 2.

    Σ 2^−b over all messages of 2 bits or more is Σ 1/C² = 0.645, and the three shorter ones add 3/16: Kraft's
    inequality holds. (It would not with C = 1 at its face value, b = 1: then the sum is 1.645.)

    Args:
        message: C, whole bits, 0 or more. A stream with its own length or end in it is self-delimiting already, and
            its bits go into a bound as they are.

    Returns:
        b, to be given as `bits` to a bound.

    Raises:
        ValueError: The length is negative or not whole.

    Source: Lotfi et al. 2022, arXiv:2211.13609; Li & Vitányi 2008, section 1.11.
    """
    (length,) = (count - 1 for count in require_counts(message + 1, "message + 1"))
    length = max(length, 2)
    return (length + 2 * math.log2(length)) * UP


def complexity_nats(bits: Any, choices: int | Sequence[int]) -> Any:
    """Return the bits and the charge for choices in nats, rounded up."""
    return (bits + charge_bits(choices)) * math.log(2) * UP
