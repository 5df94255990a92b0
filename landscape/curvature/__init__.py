"""Curvature of the loss: Hessian products, eigenpairs, spectral density, trace, effective dimensionality."""

import lazy_loader as _lazy

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submod_attrs={
        "_blocks": ["Gap", "LayerCurvature", "layer_curvature", "operator_gap"],
        "_density": ["SpectralDensity", "spectral_density"],
        "_derived": [
            "EffectiveDimension",
            "SpectralEntropy",
            "condition_number",
            "effective_dimension",
            "negative_share",
            "spectral_entropy",
        ],
        "_diagonal": ["DiagonalEstimate", "diagonal"],
        "_eigenpairs": ["Eigenpairs", "top_eigenpairs"],
        "_hessian": ["HessianOperator", "hessian"],
        "_operator": ["SymmetricOperator"],
        "_pyhessian": ["pyhessian_spectrum"],
        "_spectrum": ["Spectrum", "spectrum"],
        "_trace": ["TraceEstimate", "trace"],
    },
)

__all__ = [
    "DiagonalEstimate",
    "EffectiveDimension",
    "Eigenpairs",
    "Gap",
    "HessianOperator",
    "LayerCurvature",
    "SpectralDensity",
    "SpectralEntropy",
    "Spectrum",
    "SymmetricOperator",
    "TraceEstimate",
    "condition_number",
    "diagonal",
    "effective_dimension",
    "hessian",
    "layer_curvature",
    "negative_share",
    "operator_gap",
    "pyhessian_spectrum",
    "spectral_density",
    "spectral_entropy",
    "spectrum",
    "top_eigenpairs",
    "trace",
]
