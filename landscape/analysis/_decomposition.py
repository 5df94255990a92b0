"""What a generalisation bound is made of: error on the examples, confidence, code and charges, as stacked bars."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landscape._errors import FileError
from landscape.analysis._style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    SKY,
    VERMILION,
    caption,
    legend_below,
    literal,
    new_axes,
    style,
)
from landscape.bounds import countable_bound

_FIELDS = ("error", "bound", "bits", "n", "delta", "method")
_OPTIONAL = ("payload_bits", "charge_bits", "label", "classes")
_PARTS = (
    ("error", "error on the examples", BLUE),
    ("confidence", "confidence, ln 1/δ", SKY),
    ("payload", "bits of the code", ORANGE),
    ("charges", "bits charged for choices", VERMILION),
)
_LABEL_WIDTH = 30  # characters
_ROUNDING = 1e-5  # a claim may be rounded up, to six decimals in a certificate's file


@dataclasses.dataclass(frozen=True)
class _Bar:
    label: str
    error: float
    confidence: float
    payload: float
    charges: float
    bound: float
    bits: float
    classes: int | None
    told: tuple[Any, ...]  # n, δ, method


def plot_bound_decomposition(certificates: Any, classes: int | None = None, ax: Any = None) -> Any:
    """Plot what each bound is made of, as stacked bars that end at the bound.

    From left to right: the decoded network's error on the examples; what the inequality adds for a code of no bits at
    all, by δ; what the bits of the code add to that; what the charged choices add. The parts are differences of the
    bound, taken in this order, and would be others in another, since the bound is not linear in the bits. Lines mark
    where a bound says nothing: at 1, and where guessing stands.

    Args:
        certificates: Dicts or objects with `error`, `bound`, `bits`, `n`, `delta` and `method` (of
            `landscape.bounds.countable_bound`), and where known `payload_bits`, `charge_bits`, `label`, `classes`; or
            paths of .lsc files; one or several. Without `charge_bits` all bits are the code's.
        classes: Number of classes, where the certificates do not say.
        ax: Axes to draw on; those of a new figure by default.

    Returns:
        The matplotlib axes.

    Raises:
        FileError: A file is no certificate.
        ValueError: There are no certificates, one lacks a field, or its numbers are not a bound's.
    """  # noqa: DOC503 - what reads the certificates raises some of it
    one = isinstance(certificates, (str, Path, Mapping)) or hasattr(certificates, "bound")
    bars = [_bar(each, index) for index, each in enumerate([certificates] if one else certificates)]
    if not bars:
        raise ValueError("there are no certificates to plot; give at least one")
    with style():
        ax = new_axes(size=(7.6, 2.4 + 0.45 * len(bars))) if ax is None else ax
        places = list(range(len(bars)))[::-1]  # the first one on top
        start = [0.0] * len(bars)
        for name, text, color in _PARTS:
            widths = [getattr(bar, name) for bar in bars]
            if any(width > 0 for width in widths):
                edge = {"edgecolor": "black", "linewidth": 0.5}
                ax.barh(places, widths, left=start, height=0.62, color=color, label=text, **edge)
            start = [left + width for left, width in zip(start, widths, strict=True)]
        _decorate(ax, bars, places, classes)
        legend_below(ax, columns=2, first=[text for _, text, _ in _PARTS])
        caption(ax, _sentences(bars))
    return ax


def _decorate(ax: Any, bars: list[_Bar], places: list[int], classes: int | None) -> None:
    labels = [textwrap.fill(literal(bar.label), _LABEL_WIDTH) for bar in bars]
    if len({bar.told for bar in bars}) > 1:
        labels = [f"{label}\n({literal(_told(bar))})" for label, bar in zip(labels, bars, strict=True)]
    ax.set_yticks(places, labels)
    ax.set_ylim(-0.6, len(bars) - 0.4)
    ax.set_xlim(0, 1.32)
    ax.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    ax.spines["bottom"].set_bounds(0, 1)
    ax.set_xlabel("bound on the error on new examples (fraction)")
    ax.axvline(1, color=BLACK, linewidth=1.4, label="vacuous: 1", zorder=3)
    known = {count for bar in bars if (count := bar.classes or classes) is not None}
    for count in sorted(known):
        text = f"guessing among {count} classes: {1 - 1 / count:.3g}"
        ax.axvline(1 - 1 / count, color=GREY, linestyle="--", linewidth=1.4, label=text, zorder=3)
    for bar, place in zip(bars, places, strict=True):
        count = bar.classes or classes
        vacuous = bar.bound >= (1.0 if count is None else 1 - 1 / count)
        text = f"{bar.bound:.3f}, {bar.bits:,.0f} bits" + ("\nvacuous" if vacuous else "")
        ax.text(1.02, place, text, va="center", fontsize=9)


def _sentences(bars: list[_Bar]) -> list[str]:
    same = len({bar.told for bar in bars}) == 1
    first = f"Bounds on the decoded networks' error{f' ({_told(bars[0])})' if same else ''}."
    several = " Each holds by itself with probability 1 − δ, not all at once." if len(bars) > 1 else ""
    return [first, f"Parts are added in the order of the legend; in another they would differ.{several}"]


def _told(bar: _Bar) -> str:
    n, delta, method = bar.told
    return f"{method}, n = {n:,}, δ = {delta:g}"


def _bar(source: Any, index: int) -> _Bar:
    if not isinstance(source, (str, Path)):
        return _bar_of(source, f"certificate {index + 1}")
    try:
        return _bar_of(read_certificate(Path(source)), Path(source).stem)
    except ValueError as error:
        raise FileError(f"{source}: {error}") from error


def _bar_of(source: Any, default: str) -> _Bar:
    found = _fields(source, default)
    label = str(found.get("label") or default)
    error, bound, bits = (float(found[name]) for name in ("error", "bound", "bits"))
    payload = float(found["payload_bits"]) if found.get("payload_bits") is not None else bits
    if found.get("payload_bits") is None and found.get("charge_bits") is not None:
        payload = bits - float(found["charge_bits"])
    if not (math.isfinite(bits) and 0 <= payload <= bits * (1 + 1e-9)):
        raise ValueError(f"{label} has {payload:g} bits of code out of {bits:g} in all; expected no more than all")
    if not 0 <= error <= 1 or not bound >= error:
        raise ValueError(f"{label} has the error {error:g} and the bound {bound:g}; expected 0 ≤ error ≤ bound")
    settings = {"error": error, "n": found["n"], "delta": found["delta"], "method": found["method"]}
    empty, coded, whole = (min(countable_bound(bits=size, **settings), 1.0) for size in (0.0, min(payload, bits), bits))
    if not abs(whole - min(bound, 1.0)) <= _ROUNDING:
        raise ValueError(
            f"{label} claims {bound:.6g}, and its {bits:g} bits give {whole:.6g} by {found['method']!r}: the parts of "
            "another bound cannot be told apart"
        )
    last = max(bound, coded)
    classes = found.get("classes")
    told = (int(found["n"]), float(found["delta"]), str(found["method"]))
    parts = (error, empty - error, coded - empty, last - coded)
    return _Bar(label, *parts, bound, bits, None if classes is None else int(classes), told)


def _fields(source: Any, name: str) -> dict[str, Any]:
    get = source.get if isinstance(source, Mapping) else lambda field: getattr(source, field, None)
    found = {field: get(field) for field in (*_FIELDS, *_OPTIONAL)}
    if missing := [field for field in _FIELDS if found[field] is None]:
        raise ValueError(f"{found['label'] or name} has no {missing[0]!r}; a bar needs {', '.join(_FIELDS)}")
    return found


def read_certificate(path: Path) -> Any:
    """Read a certificate's file, by the one module that knows its format.

    Args:
        path: The .lsc file.

    Returns:
        The certificate.

    Raises:
        FileError: This version reads no certificates, or the file is none.
    """
    if importlib.util.find_spec("landscape.certificates") is None:
        raise FileError(f"{path}: this version of landscape reads no certificates; give their numbers as dicts.")
    return importlib.import_module("landscape.certificates").read(path)
