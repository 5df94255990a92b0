from __future__ import annotations

import json
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

STATEMENTS = {
    "the package": "import landscape",
    "bounds": "import landscape.bounds",
    "bounds computed": "landscape.bounds.countable_bound(error=0.01, n=60000, bits=2000, delta=0.05)",
    "names of bounds": "[getattr(landscape.bounds, name) for name in landscape.bounds.__all__]",
    "names listed": "import landscape.curvature, landscape.sharpness, landscape.volume; assert dir(landscape)",
    "record": "import landscape.record",
    "certificates": "import landscape.certificates",
    "cli": "import landscape.cli",
    "analysis": "import landscape.analysis",
}


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """Top-level modules that a fresh interpreter has loaded after each of the statements, taken in order."""
    lines = ["import json, sys", "found = {}"]
    for name, statement in STATEMENTS.items():
        lines += [statement, f"found[{name!r}] = sorted({{name.partition('.')[0] for name in sys.modules}})"]
    code = "\n".join([*lines, "print(json.dumps(found))"])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name: set(modules) for name, modules in json.loads(run.stdout).items()}


@pytest.mark.parametrize("name", STATEMENTS)
def test_light_imports_load_neither_torch_nor_lightning(loaded, name):
    assert not loaded[name] & {"torch", "lightning", "pytorch_lightning", "torchmetrics", "arviz_stats"}


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
