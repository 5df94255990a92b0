"""Permutation symmetries of networks: found by tracing, and used to align one network to another."""

import lazy_loader as _lazy

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submod_attrs={
        "_align": ["Alignment", "align"],
        "_repair": ["repair"],
        "_spec": ["Part", "Permutation", "PermutationSpec"],
        "_trace": ["trace_permutations"],
    },
)

__all__ = ["Alignment", "Part", "Permutation", "PermutationSpec", "align", "repair", "trace_permutations"]
