"""Values as JSON knows them."""

from __future__ import annotations

import math
from typing import Any


def strict(value: Any) -> Any:
    """Return the value as JSON knows it: what is not a finite number is null, what JSON does not know is text."""
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
