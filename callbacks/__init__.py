"""Lightning callbacks that record the geometry of a training into one HDF5 file, and leave no trace in it."""

import lazy_loader as _lazy

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submod_attrs={
        "_base": ["LandscapeCallback"],
        "_compressibility": ["Compressibility"],
        "_defaults": ["default_callbacks"],
        "_hessian_spectrum": ["HessianSpectrum"],
        "_learning_coefficient": ["LearningCoefficient"],
        "_loss_surface": ["LossSurface"],
        "_mode_connectivity": ["ModeConnectivity"],
        "_sharpness": ["Sharpness"],
        "_sharpness_monitor": ["SharpnessMonitor"],
        "_swa_trajectory": ["SWATrajectory"],
    },
)

__all__ = [
    "Compressibility",
    "HessianSpectrum",
    "LandscapeCallback",
    "LearningCoefficient",
    "LossSurface",
    "ModeConnectivity",
    "SWATrajectory",
    "Sharpness",
    "SharpnessMonitor",
    "default_callbacks",
]
