"""The spectrum over training: heat map, lines, threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import QuadMesh

from landscape.analysis import plot_spectrum
from landscape.record import Coordinate, GroupSchema, MemoryRecorder, Variable


def lines(ax: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in ax.lines}


def test_lines_are_the_recorded_eigenvalues(full_run: Path) -> None:
    found = lines(plot_spectrum(full_run))
    assert found["largest eigenvalue"].get_xdata().tolist() == [0, 10, 20]
    assert found["largest eigenvalue"].get_ydata() == pytest.approx([10.0, np.nan, 12.0], nan_ok=True)
    assert found["smallest eigenvalue"].get_ydata() == pytest.approx([-1.0, np.nan, -1.0], nan_ok=True)
    assert found["next largest"].get_ydata() == pytest.approx([5.0, np.nan, 5.0], nan_ok=True)
    assert found["2/η"].get_ydata() == pytest.approx([20.0, 20.0, 20.0])
    assert found["measurement failed"].get_xdata().tolist() == [10]


def test_the_heat_map_holds_the_mass_and_nothing_else(full_run: Path) -> None:
    ax = plot_spectrum(full_run)
    (mesh,) = (c for c in ax.collections if isinstance(c, QuadMesh))
    masses = np.ma.getdata(mesh.get_array()), np.ma.getmaskarray(mesh.get_array())
    shown = np.where(masses[1], 0.0, masses[0])
    # Of 4 parameters, cells with less than 0.01 / 4 are white: the feet of the smoothing kernel.
    assert shown.sum(axis=0) == pytest.approx([1.0, 0.0, 1.0], abs=0.01)
    edges = mesh.get_coordinates()[:, 0, 1]
    centres = (edges[:-1] + edges[1:]) / 2
    # Probes weigh the nodes −1, 0 and 10 by (1/4, 1/2, 1/4) and (1/8, 3/4, 1/8).
    for near, mass in ((centres < -0.5, 0.1875), (np.abs(centres) < 0.5, 0.625), (centres > 5, 0.1875)):
        assert shown[near, 0].sum() == pytest.approx(mass, abs=0.01)
    assert masses[1][:, 1].all()


def test_the_legend_and_labels(full_run: Path) -> None:
    ax = plot_spectrum(full_run)
    assert ax.get_ylabel() == "Hessian eigenvalue (not invariant)"
    assert ax.get_xlabel() == "optimizer steps"
    assert ax.figure.axes[1].get_ylabel() == "fraction of eigenvalues in a cell"
    assert {text.get_text() for text in ax.get_legend().get_texts()} >= {"largest eigenvalue", "2/η"}
    low, high = ax.get_ylim()
    assert low < -1.0
    assert high > 20.0


def test_unconverged_eigenvalues_are_crossed(make_run: Any) -> None:
    found = lines(plot_spectrum(make_run(groups=("hessian_spectrum",))))
    assert found["not converged"].get_xydata().tolist() == [[10.0, 5.0]]


@pytest.mark.parametrize(
    ("optimizer", "label", "height"),
    [
        ({"name": "SGD", "momentum": 0.9}, "(2+2β)/η, β = 0.9", 38.0),
        ({"name": "AdamW", "lr": 0.1}, None, None),
        (None, "2/η", 20.0),
    ],
)
def test_the_threshold_follows_the_optimiser(make_run: Any, optimizer: Any, label: Any, height: Any) -> None:
    run = make_run(groups=("hessian_spectrum",), attributes={"optimizer": optimizer})
    found = {text: line for text, line in lines(plot_spectrum(run)).items() if "η" in text}
    assert list(found) == ([label] if label else [])
    if label:
        assert found[label].get_ydata() == pytest.approx([height] * 3)


def test_a_threshold_far_above_is_said_not_drawn(make_run: Any) -> None:
    ax = plot_spectrum(make_run(groups=("hessian_spectrum",), learning_rate=1e-4))
    assert lines(ax)["2/η ≥ 2e+04, above the axis"].get_xdata().tolist() == []
    assert ax.get_ylim()[1] < 100.0


def test_without_density_the_eigenvalues_are_drawn() -> None:
    recorder = MemoryRecorder({})
    schema = GroupSchema(
        "hessian_spectrum", "", [Variable("eigenvalues_top", ("eigenvalue",))], [Coordinate("eigenvalue", 2)]
    )
    recorder.declare(schema)
    for step in (0, 1):
        recorder.append("hessian_spectrum", {"step": step, "eigenvalues_top": [3.0, 2.0]})
    ax = plot_spectrum(recorder.run())
    assert lines(ax)["largest eigenvalue"].get_ydata().tolist() == [3.0, 3.0]
    assert not [c for c in ax.collections if isinstance(c, QuadMesh)]


def test_a_spectrum_whose_every_row_failed_is_drawn_empty(make_run: Any) -> None:
    run = make_run(groups=("hessian_spectrum",), loss=(1.0,), error=(1.0,), failed=0)
    ax = plot_spectrum(run)
    assert "largest eigenvalue" not in lines(ax)
    assert lines(ax)["measurement failed"].get_xdata().tolist() == [0]
