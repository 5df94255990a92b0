"""What the commands print: untrusted text with its control characters written out, in any encoding of the terminal."""

from __future__ import annotations

import codecs
import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from landscape._text import visible
from landscape.cli._json import strict

_HANDLER = "landscape.spelled"
# Characters of our own that an encoding may lack; all others become their escapes.
_SPELLED = {
    "±": "+-",
    "…": "...",
    "–": "-",
    "−": "-",
    "\N{NO-BREAK SPACE}": " ",
    "²": "^2",
    "½": "1/2",
    "₁": "1",
    "≤": "<=",
    "≥": ">=",
    "→": "->",
    "∞": "inf",
    "√": "sqrt",
    "Δ": "Delta",
    "Σ": "Sum",
    "Ψ": "Psi",
    "β": "beta",
    "γ": "gamma",
    "δ": "delta",
    "η": "eta",
    "κ": "kappa",
    "λ": "lambda",
    "μ": "mu",
    "ρ": "rho",
    "σ": "sigma",
    "τ": "tau",
    "ψ": "psi",
    "ℓ": "l",
    "†": "+",
    "ᵀ": "^T",
}


def say(text: object, err: bool = False) -> None:
    """Print text; newlines are kept, other control characters are written out."""
    # Named, as click takes an ASCII stream for a mistake and writes UTF-8 to it.
    click.echo(visible(text, keep="\n"), file=sys.stderr if err else sys.stdout)


def say_json(value: Any) -> None:
    """Print a value as JSON: null for what is no number, and no character that a terminal would act on."""
    ascii_only = not (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    text = json.dumps(strict(value), indent=2, allow_nan=False, ensure_ascii=ascii_only)
    if not text.replace("\n", "").isprintable():
        text = "".join(letter if letter.isprintable() or letter == "\n" else _escaped(letter) for letter in text)
    click.echo(text, file=sys.stdout)


@contextlib.contextmanager
def any_encoding() -> Iterator[None]:
    """Let stdout and stderr print characters that their encoding lacks, spelled or as escapes."""
    former = []
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and hasattr(stream, "errors"):
            former.append((stream, stream.errors))
            stream.reconfigure(errors=_HANDLER)
    try:
        yield
    finally:
        for stream, errors in former:
            with contextlib.suppress(ValueError, OSError):  # closed meanwhile, or its reader has gone
                stream.reconfigure(errors=errors)


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    spelled = (_SPELLED.get(one) or one.encode("ascii", "backslashreplace").decode() for one in letters)
    return "".join(spelled), error.end


codecs.register_error(_HANDLER, _spell)


def _escaped(letter: str) -> str:
    units = letter.encode("utf-16-be", errors="surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
