"""Paths between solutions: straight and curved, the loss along them, its barriers, and alignment by permutations."""

import lazy_loader as _lazy

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submodules=["alignment"],
    submod_attrs={
        "_barrier": ["DEFINITIONS", "Barrier", "barrier", "barriers"],
        "_connect": ["connect", "linear_path"],
        "_curves": ["Curve"],
        "_length": ["PathIntegral", "path_integral"],
        "_plane": ["Plane", "PlaneCurve", "curve_on_plane", "plane_through"],
        "_profile": ["PathProfile", "profile"],
        "_simplex": ["SimplicialComplex", "fit_simplexes"],
        "_training": ["fit_curve"],
        "alignment": ["Alignment", "PermutationSpec", "align", "repair", "trace_permutations"],
    },
)

__all__ = [
    "DEFINITIONS",
    "Alignment",
    "Barrier",
    "Curve",
    "PathIntegral",
    "PathProfile",
    "PermutationSpec",
    "Plane",
    "PlaneCurve",
    "SimplicialComplex",
    "align",
    "alignment",
    "barrier",
    "barriers",
    "connect",
    "curve_on_plane",
    "fit_curve",
    "fit_simplexes",
    "linear_path",
    "path_integral",
    "plane_through",
    "profile",
    "repair",
    "trace_permutations",
]
