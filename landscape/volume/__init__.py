"""Volume around a solution: learning coefficient, local free energy, basin volume, Laplace evidence."""

import lazy_loader as _lazy

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submod_attrs={
        "_basin": ["BasinVolume", "basin_volume"],
        "_coefficient_grid": ["CoefficientGrid", "coefficient_grid"],
        "_evidence": ["LaplaceEvidence", "laplace_evidence"],
        "_free_energy": ["FreeEnergy", "free_energy", "gaussian_free_energy"],
        "_learning_coefficient": ["LocalLearningCoefficient", "learning_coefficient"],
    },
)

__all__ = [
    "BasinVolume",
    "CoefficientGrid",
    "FreeEnergy",
    "LaplaceEvidence",
    "LocalLearningCoefficient",
    "basin_volume",
    "coefficient_grid",
    "free_energy",
    "gaussian_free_energy",
    "laplace_evidence",
    "learning_coefficient",
]
