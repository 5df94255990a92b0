"""Run files with known numbers, written through the recorder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

from landscape._layout import ParameterLayout
from landscape.record import Coordinate, GroupSchema, MemoryRecorder, Recorder, Run, Variable, open_run

mpl.use("Agg")

TOLERANCES = (0.01, 0.03)
PATHS, DEFINITIONS = ("linear", "bezier"), ("interpolated", "mean_of_ends", "worse_end")
T = np.linspace(0.0, 1.0, 5)


@dataclasses.dataclass(frozen=True)
class Numbers:
    """What a run is written with: one value a row; rows are at steps 0, 10, 20, ..."""

    sharpness: Sequence[float] = (0.4, 0.2, 0.1)
    bits: Sequence[float] = (3000.0, 2000.0, 1000.0)
    loss: Sequence[float] = (1.0, 0.3, 0.1)
    error: Sequence[float] = (0.5, 0.3, 0.2)
    failed: int | None = None
    learning_rate: float = 0.1
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)


def _quantities(*names: str, dims: tuple[str, ...] = ()) -> list[Variable]:
    return [Variable(name, dims) for name in names]


def _write(path: Path | None, numbers: Numbers, groups: Sequence[str]) -> Run:
    provenance = {
        "model": "Net",
        "n_parameters": 4,
        "loss": "cross-entropy",
        "hyper_parameters": {"batch_size": 32, "nested": {"noise": 0.2}},
        "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.0},
        **numbers.attributes,
    }
    layout = ParameterLayout(("weight",), ((4,),))
    recorder = MemoryRecorder(provenance, layout) if path is None else Recorder.create(path, provenance, layout)
    for group in groups:
        recorder.declare(_SCHEMAS[group])
        for index in range(len(numbers.loss)):
            row: dict[str, Any] = {
                "step": 10 * index,
                "epoch": index,
                "learning_rate": numbers.learning_rate,
                "wall_seconds": 0.5,
                "train_loss": numbers.loss[index],
                "train_error": numbers.error[index] / 2,
                "held_out_loss": numbers.loss[index] + 0.1,
                "held_out_error": numbers.error[index],
            }
            if index == numbers.failed:
                row |= {"status": 1, "reason": "the loss is NaN"}
            else:
                row |= _ROWS[group](numbers, index)
            recorder.append(group, row)
    recorder.close()
    return open_run(path) if path is not None else recorder.run()


def _spectrum(numbers: Numbers, index: int) -> dict[str, Any]:
    return {
        "eigenvalues_top": [10.0 + index, 5.0],
        "eigenvalues_bottom": [-1.0, -0.5],
        "converged_top": [1, 0 if index == 1 else 1],
        "converged_bottom": [1, 1],
        "lambda_max": 10.0 + index,
        "lambda_min": -1.0,
        "density_nodes": [[-1.0, 0.0, 10.0 + index], [-1.0, 0.0, 10.0 + index]],
        "density_weights": [[0.25, 0.5, 0.25], [0.125, 0.75, 0.125]],
        "trace": 20.0,
        "trace_stderr": 2.0,
        "n_eff": [3.0, 2.0],
        "n_eff_stderr": [0.3, 0.2],
    }


def _path(numbers: Numbers, index: int) -> dict[str, Any]:
    hump = 4 * T * (1 - T)
    row: dict[str, Any] = {"end_a": np.zeros(4), "distance": 2.0}
    for split, offset in (("train", 0.0), ("held_out", 0.5)):
        for kind, height in (("loss", 2.0), ("error", 0.6)):
            row[f"curve_{split}_{kind}"] = [offset + height * hump, offset + 0.1 * hump]
            row[f"barrier_{split}_{kind}"] = [[height] * 3, [0.1] * 3]
    return row


_SPLIT_KINDS = ("train_loss", "train_error", "held_out_loss", "held_out_error")
_SCHEMAS = {
    "sharpness": GroupSchema(
        "sharpness",
        "sharpness of the loss",
        _quantities("sam", "average_case", "average_case_stderr", "worst_case", "worst_case_stderr"),
        attributes={"settings": {"rho_sam": 0.05, "rho_average": 0.1, "rho_worst": 0.5}},
    ),
    "compressibility": GroupSchema(
        "compressibility",
        "bits at a tolerance",
        _quantities("bits", "ideal_bits", dims=("tolerance",)),
        [Coordinate("tolerance", TOLERANCES)],
    ),
    "hessian_spectrum": GroupSchema(
        "hessian_spectrum",
        "spectrum of the Hessian",
        [
            *_quantities("lambda_max", "lambda_min", "trace", "trace_stderr"),
            *_quantities("eigenvalues_top", "eigenvalues_bottom", dims=("eigenvalue",)),
            Variable("converged_top", ("eigenvalue",), "i1"),
            Variable("converged_bottom", ("eigenvalue",), "i1"),
            *_quantities("density_nodes", "density_weights", dims=("probe", "node")),
            *_quantities("n_eff", "n_eff_stderr", dims=("z",)),
        ],
        [Coordinate("eigenvalue", 2), Coordinate("probe", 2), Coordinate("node", 3), Coordinate("z", [0.1, 1.0])],
    ),
    "swa_trajectory": GroupSchema(
        "swa_trajectory",
        "weights and their mean",
        [Variable("weights", ("parameter",), "f4"), *_quantities(*(f"swa_{name}" for name in _SPLIT_KINDS))],
        [Coordinate("parameter", 4)],
    ),
    "mode_connectivity": GroupSchema(
        "mode_connectivity",
        "paths between weights",
        [
            *_quantities(*(f"curve_{name}" for name in _SPLIT_KINDS), dims=("path", "t")),
            *_quantities(*(f"barrier_{name}" for name in _SPLIT_KINDS), dims=("path", "definition")),
            *_quantities("end_a", dims=("parameter",)),
            *_quantities("distance"),
        ],
        [
            Coordinate("path", PATHS),
            Coordinate("t", T),
            Coordinate("definition", DEFINITIONS),
            Coordinate("parameter", 4),
        ],
    ),
}
_ROWS: dict[str, Callable[[Numbers, int], dict[str, Any]]] = {
    "sharpness": lambda numbers, index: {
        "sam": numbers.sharpness[index] / 2,
        "average_case": numbers.sharpness[index],
        "average_case_stderr": 0.01,
        "worst_case": 8 * numbers.sharpness[index],
        "worst_case_stderr": 0.05,
    },
    "compressibility": lambda numbers, index: {
        "bits": [2 * numbers.bits[index], numbers.bits[index]],
        "ideal_bits": [numbers.bits[index], numbers.bits[index]],
    },
    "hessian_spectrum": _spectrum,
    "swa_trajectory": lambda numbers, index: {
        "weights": np.zeros(4),
        "swa_train_loss": numbers.loss[index] / 2,
        "swa_held_out_loss": numbers.loss[index],
        "swa_train_error": numbers.error[index] / 4,
        "swa_held_out_error": numbers.error[index] / 2,
    },
    "mode_connectivity": _path,
}


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """Records a run in memory: make_run(groups=..., sharpness=..., bits=..., ...) -> Run."""

    def make(groups: Sequence[str] = ("sharpness", "compressibility"), **numbers: Any) -> Run:
        return _write(None, Numbers(**numbers), groups)

    return make


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a run with every group; the second of its three rows failed."""
    path = tmp_path_factory.mktemp("full") / "landscape.h5"
    _write(path, Numbers(failed=1), tuple(_SCHEMAS))
    return path


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files of six runs at matched loss, sharpness and bits in the same order but for the last two."""
    paths = []
    for index, bits in enumerate([1000.0, 1100.0, 1200.0, 1300.0, 1500.0, 1400.0]):
        numbers = Numbers(
            sharpness=(1.0, 0.5, 0.01 * 2**index),
            bits=(9000.0, 8000.0, bits),
            loss=(1.0, 0.3, 0.1 + 0.01 * index),
            error=(0.5, 0.3, 0.05 * (index + 1)),
            attributes={"hyper_parameters": {"batch_size": (8, 128)[index % 2]}},
        )
        paths.append(tmp_path_factory.mktemp("grid") / "landscape.h5")
        _write(paths[-1], numbers, ("sharpness", "compressibility"))
    return paths


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    """Leaves no figure open."""
    yield
    plt.close("all")
