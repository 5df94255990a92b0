"""Volume around a solution: learning coefficient, local free energy, basin volume, Laplace evidence."""

import lazy_loader as _lazy

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submod_attrs={
        "_learning_coefficient": ["LocalLearningCoefficient", "learning_coefficient"],
    },
)

__all__ = ["LocalLearningCoefficient", "learning_coefficient"]
