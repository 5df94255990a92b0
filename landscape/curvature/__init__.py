"""Curvature of the loss: Hessian products, eigenpairs, spectral density, trace, effective dimensionality."""

import lazy_loader as _lazy

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submod_attrs={
        "_density": ["SpectralDensity", "spectral_density"],
        "_eigenpairs": ["Eigenpairs", "top_eigenpairs"],
        "_hessian": ["HessianOperator", "hessian"],
        "_operator": ["SymmetricOperator"],
        "_pyhessian": ["pyhessian_spectrum"],
        "_spectrum": ["Spectrum", "spectrum"],
        "_tracking": ["Tracked", "track"],
        "_trace": ["TraceEstimate", "trace"],
    },
)

__all__ = [
    "Eigenpairs",
    "HessianOperator",
    "SpectralDensity",
    "Spectrum",
    "SymmetricOperator",
    "TraceEstimate",
    "Tracked",
    "hessian",
    "pyhessian_spectrum",
    "spectral_density",
    "spectrum",
    "top_eigenpairs",
    "trace",
    "track",
]
