"""Loss-landscape geometry for PyTorch Lightning: measure, record and compare flatness and compressibility."""

import lazy_loader as _lazy

__version__ = "0.1.0"

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submodules=[
        "analysis",
        "averaging",
        "bounds",
        "callbacks",
        "compression",
        "connectivity",
        "curvature",
        "description",
        "record",
        "sharpness",
        "surface",
        "volume",
    ],
    submod_attrs={
        "_errors": ["FileError", "LandscapeError", "MeasurementError"],
        "callbacks._plan": ["plan"],
        "objective": ["Objective"],
        "record": ["open_run"],
    },
)

__all__ = [
    "FileError",
    "LandscapeError",
    "MeasurementError",
    "Objective",
    "__version__",
    "analysis",
    "averaging",
    "bounds",
    "callbacks",
    "compression",
    "connectivity",
    "curvature",
    "description",
    "open_run",
    "plan",
    "record",
    "sharpness",
    "surface",
    "volume",
]
