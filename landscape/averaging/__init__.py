"""Averages of weights along a training, and the batch-normalisation statistics that belong to them."""

import lazy_loader as _lazy

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submod_attrs={
        "_batchnorm": ["recompute_batchnorm"],
        "_mean": ["RunningMean"],
        "_swa": ["swa"],
    },
)

__all__ = ["RunningMean", "recompute_batchnorm", "swa"]
