"""Verify a certificate: decode it, count errors anew, recompute the bound, and say yes or no."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from landscape._batches import cast, n_examples
from landscape._errors import LandscapeError
from landscape._parameters import measuring_dtype, trainable
from landscape._results import Result
from landscape._text import visible
from landscape.certificates._certificate import Certificate, claimable
from landscape.certificates._counting import count_wrong, objective_of, require_answers_of_one_example
from landscape.certificates._examples import examples_fingerprint
from landscape.certificates._payload import decoded
from landscape.certificates._reading import read
from landscape.certificates._skeleton import Architecture
from landscape.isolation import isolated

_LONGEST = 1000  # characters of a reason


@dataclasses.dataclass(frozen=True)
class Verdict(Result):
    """Whether a certificate's claim follows from its file, the architecture and the examples.

    Attributes:
        valid: Yes or no.
        reason: Why, in a sentence.
        certificate: What was claimed; None where the file could not be read.
        wrong: Errors of the decoded network on the examples; None where it did not come to counting.
        bound: The bound that follows from them; None likewise.
    """

    valid: bool
    reason: str
    certificate: Certificate | None = None
    wrong: int | None = None
    bound: float | None = None

    def __bool__(self) -> bool:
        return self.valid

    def __str__(self) -> str:
        return f"{'valid' if self.valid else 'not valid'}: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict by name, with the claim as a dict."""
        claim = None if self.certificate is None else self.certificate.to_dict()
        return super().to_dict() | {"certificate": claim}


def verify(
    certificate: Certificate | str | Path,
    architecture: Architecture,
    batches: Iterable[Any],
    *,
    loss_fn: Callable[..., Any] | None = None,
) -> Verdict:
    """Check a certificate with nothing but itself, the architecture and the examples.

    The stream is decoded into the architecture, the errors are counted on all examples, and the bound is computed from
    them and from the length of the stream. The claim stands if neither the bound nor the errors are more than claimed.

    What cannot be checked is what was fixed before or chosen from how many alternatives: `Certificate.statement` lists
    it. A checksum finds damage; against a forger stand the decoding and the counting.

    Args:
        certificate: The file, or what `read` returned.
        architecture: What builds the network when called without arguments.
        batches: The examples, in any order and cut in any way.
        loss_fn: As for `certify`.

    Returns:
        The verdict; no as well where the file cannot be read.
    """
    claim: Certificate | None = None
    try:
        claim = certificate if isinstance(certificate, Certificate) else read(certificate)
        verdict = _verdict(claim, architecture, batches, loss_fn)
    except (LandscapeError, ValueError) as error:
        verdict = Verdict(False, str(error), claim)
    return dataclasses.replace(verdict, reason=_plain(verdict.reason))


def _plain(reason: str) -> str:
    """Return a sentence that may quote a file without the control characters and the length that it may have there."""
    text = visible(reason)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _verdict(
    claim: Certificate, architecture: Architecture, batches: Iterable[Any], loss_fn: Callable[..., Any] | None
) -> Verdict:
    network = decoded(claim, architecture)
    # The examples first: others may not even fit into the network.
    dtype = measuring_dtype([parameter for _, parameter in trainable(network)])
    with isolated(nn.Identity(), () if isinstance(batches, (list, tuple)) else (batches,)):
        held = [cast(batch, torch.device("cpu"), dtype) for batch in batches]
    found, n = examples_fingerprint(held), sum(n_examples(batch) for batch in held)
    if n != claim.n or found["fingerprint"] != claim.data.get("fingerprint"):
        return Verdict(
            False,
            f"these are not the examples of the certificate: it counts {claim.n} with the fingerprint "
            f"{str(claim.data.get('fingerprint'))[:12]}, these {n} have {found['fingerprint'][:12]} (a loader that "
            "samples, drops a last batch or augments gives others every time)",
            claim,
        )
    if found["repeated"] != claim.data.get("repeated"):
        repeated = f"{found['repeated']} of the examples are equal to an earlier one, not {claim.data.get('repeated')}"
        return Verdict(False, repeated, claim)
    objective = objective_of(network, held, loss_fn)
    count = count_wrong(objective)
    require_answers_of_one_example(objective)
    bound = claimable(
        wrong=count.wrong,
        n=count.n,
        payload_bits=claim.payload_bits,
        delta=claim.delta,
        method=claim.method,
        choices=claim.choices,
    )
    counted = f"the decoded network gets {count.wrong} of {count.n} examples wrong"
    if bound > claim.bound:
        reason = f"{counted}, {claim.wrong} are claimed, and the bound is {bound:.6f}, not {claim.bound:.6f}"
        return Verdict(False, reason, claim, count.wrong, bound)
    if count.wrong > claim.wrong:
        reason = f"{counted}, and only {claim.wrong} are claimed"
        return Verdict(False, reason, claim, count.wrong, bound)
    if count.classes != claim.classes:
        reason = f"the network chooses from {count.classes} classes, not from {claim.classes}"
        return Verdict(False, reason, claim, count.wrong, bound)
    reason = f"{counted}, its {round(claim.bits, 1):.10g} bits decode, and the bound is {bound:.6f}"
    if count.wrong != claim.wrong:
        reason += f" (the certificate has {claim.wrong} wrong, which claims less)"
    return Verdict(True, reason, claim, count.wrong, bound)
