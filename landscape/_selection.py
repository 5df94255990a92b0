"""Find the tensors of a parameter layout that names and patterns stand for. Torch-free."""

from __future__ import annotations

import difflib
import fnmatch
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from landscape._layout import ParameterLayout

LAST_LAYER = "last_layer"
_ADAPTERS = "lora"
_MOST_NAMES = 12  # that an error lists


def select(layout: ParameterLayout, patterns: str | Sequence[str]) -> tuple[int, ...]:
    """Find tensors by name, by the name of a module that holds them, or by a pattern such as `*.bias`.

    "lora" also stands for the adapters that peft adds: tensors with a part of the name that begins with `lora_`.

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
            raise ValueError(f"{pattern!r} matches no trainable parameter; {_near(pattern, layout.names)}")
        found |= matches
    return tuple(sorted(found))


def as_patterns(parameters: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """Check the names of a part of a model.

    Args:
        parameters: One name or pattern, several, or None for the whole model.

    Returns:
        The patterns; None for the whole model.

    Raises:
        ValueError: There are none, or one is no text.
    """
    if parameters is None:
        return None
    single = isinstance(parameters, str) or not isinstance(parameters, Iterable)
    patterns: tuple[Any, ...] = (parameters,) if single else tuple(parameters)
    if not patterns or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise ValueError(
            f"parameters is {parameters!r}; give names of parameters or modules, or patterns, such as "
            "parameters=['encoder', '*.bias'], or 'lora', or 'last_layer'"
        )
    return patterns


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
    if pattern == _ADAPTERS and any(part.startswith("lora_") for part in plain.split(".")):
        return True
    return any(
        candidate == text or candidate.startswith(text + ".") or fnmatch.fnmatchcase(candidate, text)
        for candidate, text in itertools.product({name, plain}, {pattern, pattern.replace("_orig_mod.", "")})
    )


def _near(pattern: str, names: Sequence[str]) -> str:
    """Name what a pattern without a match may have meant: similar names, or all of them where they are few."""
    if len(names) <= _MOST_NAMES:
        return f"there are {', '.join(names)} (a tied tensor goes by its first name)"
    owners = [
        ".".join(parts[:count]) for parts in (name.split(".") for name in names) for count in range(1, len(parts))
    ]
    known = list(dict.fromkeys([*owners, *names]))
    if close := difflib.get_close_matches(pattern.strip("*."), known, n=3, cutoff=0.5):
        return f"did you mean {' or '.join(close)}? (a tied tensor goes by its first name)"
    return f"there are {', '.join(names[:_MOST_NAMES])} and {len(names) - _MOST_NAMES} more"
