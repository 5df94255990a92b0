"""Untrusted text as visible characters: control characters and changes of direction are written out."""

from __future__ import annotations

import unicodedata


def visible(text: object, keep: str = "") -> str:
    r"""Return text that cannot steer a terminal, hide itself or turn around what stands beside it.

    Control characters, changes of writing direction, characters without width and halves of surrogate pairs become
    their escapes. All else stays as it is, also spaces such as the no-break space.

    Args:
        text: The text, or something that is shown as its `str`.
        keep: Characters that stay although they would be escaped, such as a newline.

    Returns:
        The text.

    Example:
        >>> visible("\x1b[31mred")
        '\\x1b[31mred'
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(letter if _is_harmless(letter) or letter in keep else _escaped(letter) for letter in text)


def _is_harmless(letter: str) -> bool:
    # Python calls no space but the plain one printable.
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def _escaped(letter: str) -> str:
    code = ord(letter)
    names = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return names.get(letter) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )
