"""Sharpness measures: how much the loss rises when the weights move, one measure a file."""

import lazy_loader as _lazy

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submod_attrs={
        "_average": ["average_case"],
        "_sam": ["sam"],
        "_worst": ["worst_case"],
    },
)

__all__ = ["average_case", "sam", "worst_case"]
