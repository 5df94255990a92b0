"""Registers the folder tests/field, and tests/support behind it, under names of their own; marks every test here."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def _register(name: str, folder: Path) -> None:
    # pytest's importlib mode puts no folder on sys.path, so the packages are registered here.
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


_register("landscape_test_support", _HERE.parent / "support")
_register("landscape_test_field", _HERE)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers", "field: needs packages of others; left out by `make test`, see `make test-field`"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder; other packages' warnings are their own affair."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.field)
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(autouse=True)
def _quiet() -> None:
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
