"""A certificate in words: what is claimed, what it is made of, and what it takes for granted."""

from __future__ import annotations

from typing import Any


def statement(certificate: Any) -> str:
    """Write the claim as sentences, one a line.

    Args:
        certificate: The `Certificate`, which imports this module.

    Returns:
        Text of several lines.
    """
    return "\n".join([*_claim(certificate), *_parts(certificate), "It holds if", *_assumptions(certificate)])


def _claim(certificate: Any) -> list[str]:
    sure = f"{100 * (1 - certificate.delta):.6g} %"
    lines = [
        f"With probability {sure} over the draw of {certificate.n} examples, the decoded network errs on at most "
        f"{certificate.bound:.4f} of new examples of the same kind."
    ]
    if certificate.vacuous:
        guess = "no network errs on more" if certificate.classes is None else "guessing does no worse"
        lines.append(f"This is vacuous: it says nothing, as {guess} than {certificate.trivial:.4g}.")
    lines.append("It is a claim about the network that the file decodes to, not about any that it was made from.")
    return lines


def _parts(certificate: Any) -> list[str]:
    lines = [
        f"  bound       {certificate.bound:.4f} = train error {certificate.error:.4f} ({certificate.wrong} of "
        f"{certificate.n} wrong) + complexity {certificate.complexity:.4f}",
        f"  bits        {round(certificate.bits, 1):.10g} = payload {certificate.payload_bits} + charges "
        f"{round(certificate.charge_bits, 1):.10g}",
        f"  n, δ        {certificate.n}, {certificate.delta:g}",
        f"  method      {certificate.method}",
    ]
    if certificate.choices:
        chosen = ", ".join(f"{_plain(name)}, one of {count}" for name, count in certificate.choices.items())
        lines.append(f"  charged     {chosen}")
    return lines


def _assumptions(certificate: Any) -> list[str]:
    repeated = certificate.data["repeated"]
    draws = (
        f"- the {certificate.n} examples are independent draws from where the new ones come from: none is a copy or a "
        "variant of another, or another part of the same document, person or recording"
    )
    if repeated:
        draws += f" ({repeated} of them are equal to an earlier one; somebody vouches that they were drawn so)"
    fixed = (
        []
        if "architecture" in certificate.choices
        else ["the architecture, with all that its code holds and how it sees an example (scaling, vocabulary)"]
    )
    named = {**certificate.architecture["settings"], **certificate.codec, "delta": certificate.delta}
    fixed += [f"{_plain(name)} = {_plain(value)}" for name, value in named.items() if name not in certificate.choices]
    lines = [
        draws + ";",
        "- these were fixed before anybody looked at the examples, or chosen without them: " + ", ".join(fixed) + ";",
    ]
    if certificate.choices:
        lines.append(
            "- these were chosen from no more alternatives than charged: " + ", ".join(map(_plain, certificate.choices))
        )
    else:
        lines.append("- nothing outside of the payload was chosen by looking at the examples")
    lines[-1] += ";"
    lines.append("- an answer is computed from its example alone, without looking at the right answer")
    lines[-1] += "."
    return lines


def _plain(value: Any) -> str:
    """Return what a file says as text without control characters, with which it could write lines of its own."""
    text = str(value)
    return text if text.isprintable() else repr(text)
