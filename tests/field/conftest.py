"""Marks every test here, and quiets Lightning."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

_HERE = Path(__file__).parent


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
