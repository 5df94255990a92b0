from __future__ import annotations

import subprocess
import sys

import pytest

import landscape.analysis
import landscape.averaging
import landscape.bounds
import landscape.callbacks
import landscape.certificates
import landscape.compression
import landscape.connectivity
import landscape.curvature
import landscape.description
import landscape.record
import landscape.sharpness
import landscape.surface
import landscape.volume


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after the statement."""
    code = f"{statement}\nimport sys\nprint(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "landscape",
        "landscape.analysis",
        "landscape.bounds",
        "landscape.certificates",
        "landscape.cli",
        "landscape.record",
    ],
)
def test_light_imports_load_neither_torch_nor_lightning(module):
    assert not loaded_by(f"import {module}") & {"torch", "lightning", "pytorch_lightning", "torchmetrics"}


def test_bounds_are_computed_without_torch():
    call = "landscape.bounds.countable_bound(error=0.01, n=60000, bits=2000, delta=0.05)"
    names = "[getattr(landscape.bounds, name) for name in landscape.bounds.__all__]"
    assert not loaded_by(f"import landscape.bounds; {call}; {names}") & {"torch", "lightning", "pytorch_lightning"}


def test_listing_names_is_light_and_complete():
    loaded = loaded_by(
        "import landscape, landscape.curvature, landscape.sharpness, landscape.volume\nassert dir(landscape)"
    )
    assert not loaded & {"torch", "arviz_stats"}


def test_every_public_name_is_there():
    assert landscape.callbacks.__name__ == "landscape.callbacks"
    for package in (
        landscape,
        landscape.analysis,
        landscape.averaging,
        landscape.bounds,
        landscape.callbacks,
        landscape.certificates,
        landscape.compression,
        landscape.connectivity,
        landscape.curvature,
        landscape.description,
        landscape.record,
        landscape.sharpness,
        landscape.surface,
        landscape.volume,
    ):
        for name in package.__all__:
            assert getattr(package, name) is not None
        # Where the list is written out for type checkers, it must be what the package loads.
        if package is not landscape and "_lazy_names" in vars(package):
            assert sorted(package.__all__) == sorted(package._lazy_names)
