"""Certificates: a generalisation bound as a file, with the network that it is of, that anyone can verify."""

import lazy_loader as _lazy

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submod_attrs={
        "_certificate": ["Certificate", "best_of"],
        "_certify": ["certify"],
        "_intrinsic": ["IntrinsicDimension", "intrinsic_dimension"],
        "_payload": ["decoded"],
        "_reading": ["read"],
        "_subspace": ["SubspaceCode"],
        "_training": ["train_subspace"],
        "_verify": ["Verdict", "verify"],
    },
)

__all__ = [
    "Certificate",
    "IntrinsicDimension",
    "SubspaceCode",
    "Verdict",
    "best_of",
    "certify",
    "decoded",
    "intrinsic_dimension",
    "read",
    "train_subspace",
    "verify",
]
