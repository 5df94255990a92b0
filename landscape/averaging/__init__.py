"""Averages of weights along a training, and the batch-normalisation statistics that belong to them."""

import lazy_loader as _lazy

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submod_attrs={
        "_batchnorm": ["recompute_batchnorm"],
        "_components": ["OnlinePCA", "TrajectoryComponents", "recorded_components"],
        "_ema": ["ema", "lawa"],
        "_mean": ["RunningMean"],
        "_moments": ["RunningMoments"],
        "_predictive": ["ModelAverage", "bayesian_average", "samples_of"],
        "_swa": ["swa"],
        "_swag": ["MultiSwag", "Swag", "multiswag", "swag"],
    },
)

__all__ = [
    "ModelAverage",
    "MultiSwag",
    "OnlinePCA",
    "RunningMean",
    "RunningMoments",
    "Swag",
    "TrajectoryComponents",
    "bayesian_average",
    "ema",
    "lawa",
    "multiswag",
    "recompute_batchnorm",
    "recorded_components",
    "samples_of",
    "swa",
    "swag",
]
