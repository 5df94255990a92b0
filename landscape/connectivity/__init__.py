"""Paths between two solutions: straight and curved, the loss along them, and the barrier that it shows."""

import lazy_loader as _lazy

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submod_attrs={
        "_barrier": ["DEFINITIONS", "barrier"],
        "_connect": ["connect", "linear_path"],
        "_curves": ["Curve"],
        "_profile": ["PathProfile", "profile"],
        "_training": ["fit_curve"],
    },
)

__all__ = ["DEFINITIONS", "Curve", "PathProfile", "barrier", "connect", "fit_curve", "linear_path", "profile"]
