"""The learning coefficient beside half of N_eff: the numbers on the axes, and why a line may be missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from landscape import FileError
from landscape.analysis import plot_learning_coefficient
from landscape.curvature import SpectralDensity
from landscape.record import Coordinate, GroupSchema, MemoryRecorder, Run, Variable

FLAGS = ("diverged", "large_step", "not_mixed")
P, GAMMA, NBETA = 40, 100.0, 200.0
Z = GAMMA / NBETA
NODES = [[-3.0, 0.5, 2.0, 0.0], [-1.0, 1.5, 0.0, 0.0]]
WEIGHTS = [[0.1, 0.6, 0.3, 0.0], [0.5, 0.5, 0.0, 0.0]]


def record(
    values: tuple[float, ...] = (2.0, 3.0, 4.0),
    flagged: dict[int, str] | None = None,
    *,
    ladder: tuple[float, ...] = (0.1, 1.0),
    nbeta: tuple[float, ...] | float = NBETA,
    spectrum: bool = True,
    density: bool = True,
    size: int | None = P,
    gamma: float | None = GAMMA,
) -> Run:
    recorder = MemoryRecorder({} if size is None else {"n_parameters": size})
    chains = [Variable(name) for name in ("learning_coefficient", "learning_coefficient_stderr", "nbeta")]
    chains.append(Variable("flag", ("flag_name",), "i1"))
    settings = {"settings": {} if gamma is None else {"gamma": gamma}}
    recorder.declare(GroupSchema("learning_coefficient", "λ", chains, [Coordinate("flag_name", FLAGS)], settings))
    temperatures = (nbeta,) * len(values) if isinstance(nbeta, float) else nbeta
    for index, value in enumerate(values):
        row = {"learning_coefficient": value, "learning_coefficient_stderr": 0.1 * (index + 1)}
        flags = [int((flagged or {}).get(index) == name) for name in FLAGS]
        common = {"step": 10 * (index + 1), "nbeta": temperatures[index], "flag": flags}
        recorder.append("learning_coefficient", common | row)
    if spectrum:
        variables = [Variable(name, ("z",)) for name in ("n_eff", "n_eff_stderr")]
        variables += [Variable(f"density_{name}", ("probe", "node")) for name in ("nodes", "weights")] * density
        coordinates = [Coordinate("z", ladder)] + [Coordinate("probe", 2), Coordinate("node", 4)] * density
        recorder.declare(GroupSchema("hessian_spectrum", "spectrum", variables, coordinates))
        for step in (5, 30):
            row: dict[str, Any] = {
                "step": step,
                "n_eff": [1.0] * len(ladder),
                "n_eff_stderr": [4.0, 2.0][: len(ladder)],
            }
            if density:
                row |= {"density_nodes": NODES, "density_weights": WEIGHTS}
            recorder.append("hessian_spectrum", row)
    return recorder.run()


def bars(ax: Any) -> dict[str, np.ndarray]:
    """x, y and half-length of error bars by label."""
    found = {}
    for container in ax.containers:
        line, _, (segments,) = container.lines
        half = [np.ptp(np.asarray(segment)[:, 1]) / 2 for segment in segments.get_segments()]
        found[container.get_label()] = np.column_stack([line.get_xydata(), half])
    return found


def caption(ax: Any) -> str:
    return ax.get_title(loc="left").replace("\n", " ")


def test_values_with_their_errors() -> None:
    ax = plot_learning_coefficient(record())
    assert bars(ax)["λ̂ by chains"] == pytest.approx(np.array([[10, 2, 0.1], [20, 3, 0.2], [30, 4, 0.3]]))
    assert ax.get_ylabel() == "local learning coefficient (parameters)"
    assert ax.get_xlabel() == "optimizer steps"
    assert "d/2 = 20 at a regular minimum" in caption(ax)


def test_half_of_n_eff_is_that_of_the_density() -> None:
    found = bars(plot_learning_coefficient(record()))["½ N_eff of the Hessian"]
    one = 0.6 * 0.5 / (0.5 + Z) + 0.3 * 2 / (2 + Z)
    other = 0.5 * 1.5 / (1.5 + Z)
    value = P / 2 * (one + other) / 2
    # Errors 4 at z = .1 and 2 at z = 1; z = .5 lies log10(5) of the way between them.
    stderr = (4 - 2 * np.log10(5)) / 2
    assert found == pytest.approx(np.array([[5, value, stderr], [30, value, stderr]]))
    assert "½ N_eff at z = γ/nβ = 0.5" in caption(plot_learning_coefficient(record()))


def test_it_is_the_density_that_recorded_it() -> None:
    density = SpectralDensity(np.array(NODES), np.array(WEIGHTS), P, seed=0, n_matvecs=0)
    found = bars(plot_learning_coefficient(record()))["½ N_eff of the Hessian"]
    assert 2 * found[0, 1] == pytest.approx(density.n_eff(Z).value, rel=1e-14)


def test_a_row_with_fewer_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "WEIGHTS", [WEIGHTS[0], [0.0] * 4])
    found = bars(plot_learning_coefficient(record()))["½ N_eff of the Hessian"]
    assert found[0, 1] == pytest.approx(P / 2 * (0.6 * 0.5 / (0.5 + Z) + 0.3 * 2 / (2 + Z)))


def test_on_a_rung_of_the_ladder_the_error_is_the_rungs() -> None:
    found = bars(plot_learning_coefficient(record(nbeta=100.0)))["½ N_eff of the Hessian"]
    assert found[:, 2] == pytest.approx([1.0, 1.0])


def test_flagged_values_are_open() -> None:
    ax = plot_learning_coefficient(record(flagged={1: "not_mixed"}))
    found = bars(ax)
    assert found["λ̂ by chains"][:, 0].tolist() == [10, 30]
    assert found["λ̂ by chains, flagged"][:, 0].tolist() == [20]
    faces = {each.get_label(): each.lines[0].get_markerfacecolor() for each in ax.containers}
    assert faces["λ̂ by chains, flagged"] == "white" != faces["λ̂ by chains"]
    assert "Flags (rows): not mixed (1)." in caption(ax)


def test_a_diverged_chain_leaves_a_gap() -> None:
    ax = plot_learning_coefficient(record((2.0, np.nan, 4.0), {1: "diverged"}))
    assert list(bars(ax)) == ["λ̂ by chains", "½ N_eff of the Hessian"]
    assert bars(ax)["λ̂ by chains"][:, 0].tolist() == [10, 30]
    assert "1 of 3 rows without a value: their chains diverged." in caption(ax)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"spectrum": False}, "no spectrum was recorded"),
        ({"density": False}, "no spectral density was recorded"),
        ({"ladder": (1.0, 10.0)}, "z = 0.5 lies outside of the recorded ladder, 1 to 10."),
        ({"ladder": (0.1, 0.4)}, "z = 0.5 lies outside of the recorded ladder, 0.1 to 0.4."),
        ({"nbeta": (200.0, 200.0, 300.0)}, "the temperature of the chains changed"),
        ({"gamma": None}, "tether and temperature of the chains were not recorded"),
        ({"size": None}, "the number of parameters was not recorded"),
    ],
)
def test_why_there_is_no_half_dimension(given: dict[str, Any], why: str) -> None:
    ax = plot_learning_coefficient(record(**given))
    assert list(bars(ax)) == ["λ̂ by chains"]
    assert f"½ N_eff not drawn: {why}" in caption(ax)


def test_a_run_without_chains_is_told(make_run: Any) -> None:
    with pytest.raises(FileError, match="has no group 'learning_coefficient'"):
        plot_learning_coefficient(make_run())
