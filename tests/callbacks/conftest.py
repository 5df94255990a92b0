"""Makes tests/callbacks/trainings.py importable by the name landscape_test_trainings, and quiets Lightning."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path

import pytest
import torch


def _load_trainings() -> None:
    # pytest's importlib mode puts no folder on sys.path, so the module is registered under its own name here.
    path = Path(__file__).with_name("trainings.py")
    spec = importlib.util.spec_from_file_location("landscape_test_trainings", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["landscape_test_trainings"] = module
    spec.loader.exec_module(module)


if "landscape_test_trainings" not in sys.modules:
    _load_trainings()


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Whatever Lightning writes where nobody said where, it writes there.
    monkeypatch.chdir(tmp_path)
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.manual_seed(0)
