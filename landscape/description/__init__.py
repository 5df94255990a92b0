"""How many bits describe the labels, given the inputs: two-part and prequential code lengths."""

import lazy_loader as _lazy

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submod_attrs={
        "_lightning": ["LightningTraining"],
        "_orders": ["Orders", "prequential_orders"],
        "_prequential": ["Prequential", "prequential"],
        "_training": ["AdamTraining"],
        "_two_part": ["TwoPart", "two_part"],
    },
)

__all__ = [
    "AdamTraining",
    "LightningTraining",
    "Orders",
    "Prequential",
    "TwoPart",
    "prequential",
    "prequential_orders",
    "two_part",
]
