"""What tables are printed with: rich's console, and texts that are shown as they are."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console
from rich.text import Text

from landscape._text import visible

_WIDTH = 120  # of the output where it goes to no terminal


def shown(text: object, style: str = "", **more: Any) -> Text:
    """Return text for a table or console of rich, without markup and without control characters."""
    return Text(visible(text), style, **more)


def console() -> Console:
    """Return the console that tables are printed on; wide enough for them where the output goes to no terminal."""
    found = Console(highlight=False)
    if not found.is_terminal and "COLUMNS" not in os.environ:
        return Console(highlight=False, width=_WIDTH)
    return found
