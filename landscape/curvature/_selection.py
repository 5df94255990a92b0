"""Which tensors of a parameter layout a name or pattern stands for."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Sequence

from landscape._layout import ParameterLayout


def select(layout: ParameterLayout, patterns: str | Sequence[str]) -> tuple[int, ...]:
    """Find tensors by name, by the name of a module that holds them, or by a pattern such as `*.bias`.

    Args:
        layout: The names to choose from.
        patterns: One or several.

    Returns:
        Indices into the layout, ascending, each once.

    Raises:
        ValueError: A pattern matches nothing, or there is none.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if not patterns:
        raise ValueError("no parameter names were given; name at least one parameter, module or pattern")
    found: set[int] = set()
    for pattern in patterns:
        matches = {index for index, name in enumerate(layout.names) if _stands_for(pattern, name)}
        if not matches:
            raise ValueError(
                f"{pattern!r} matches no trainable parameter; there are {', '.join(layout.names)} "
                "(a tied tensor goes by its first name)"
            )
        found |= matches
    return tuple(sorted(found))


def sublayout(layout: ParameterLayout, indices: Sequence[int]) -> ParameterLayout:
    """Return the layout of some of the tensors."""
    return ParameterLayout(tuple(layout.names[i] for i in indices), tuple(layout.shapes[i] for i in indices))


def modules(layout: ParameterLayout) -> dict[str, tuple[int, ...]]:
    """Group the tensors by the module that holds them, in order."""
    owners = [name.rpartition(".")[0] for name in layout.names]
    return {owner: tuple(i for i, other in enumerate(owners) if other == owner) for owner in dict.fromkeys(owners)}


def joined(slices: Sequence[slice]) -> list[slice]:
    """Merge slices that touch, so that whole layers move in one copy."""
    merged: list[slice] = []
    for part in slices:
        if merged and merged[-1].stop == part.start:
            merged[-1] = slice(merged[-1].start, part.stop)
        else:
            merged.append(part)
    return merged


def _stands_for(pattern: str, name: str) -> bool:
    plain = name.replace("_orig_mod.", "")  # what torch.compile puts into the names of what it wraps
    return any(
        candidate == text or candidate.startswith(text + ".") or fnmatch.fnmatchcase(candidate, text)
        for candidate, text in itertools.product({name, plain}, {pattern, pattern.replace("_orig_mod.", "")})
    )
