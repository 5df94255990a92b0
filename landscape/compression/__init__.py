"""How few bits describe a network: codes that decode exactly, and the fewest bits at an allowed loss rise."""

import lazy_loader as _lazy

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submod_attrs={
        "_bitstream": ["Code", "decode", "encode"],
        "_law": ["QuantisationLaw", "quantisation_law"],
        "_noise_radius": ["NoiseRadius", "noise_radius"],
        "_search": ["Bits", "bits"],
    },
)

__all__ = [
    "Bits",
    "Code",
    "NoiseRadius",
    "QuantisationLaw",
    "bits",
    "decode",
    "encode",
    "noise_radius",
    "quantisation_law",
]
