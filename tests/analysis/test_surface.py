from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import xarray as xr

from landscape import FileError, LandscapeError
from landscape.analysis import plot_surface, write_surface_html
from landscape.analysis._surface import contour_levels
from landscape.record import Coordinate, GroupSchema, MemoryRecorder, Variable

A, B = np.linspace(-1, 1, 5), np.array([-2.0, -1.0, 0.0, 3.0])
HEIGHTS = 1 + 3 * A[:, None] ** 2 + 0.5 * B[None] ** 2 + 0.2 * A[:, None] * B[None]


def record(failed: bool = False, dimensions: int = 2):
    grid = ("point_0", "point_1")[:dimensions]
    variables = [
        *(Variable(f"axis_{index}", (dim,)) for index, dim in enumerate(grid)),
        Variable("surface_train_loss", grid),
        Variable("surface_train_error", grid),
        Variable("center", ("parameter",), "f4"),
        Variable("trajectory_step", ("visit",), "i8"),
        Variable("trajectory_coordinates", ("visit", "axis")),
        Variable("trajectory_residual", ("visit",)),
        Variable("trajectory_loss", ("visit",)),
    ]
    axes = [
        *(Coordinate(dim, size) for dim, size in zip(grid, (5, 4), strict=False)),
        *(Coordinate("parameter", 3), Coordinate("visit", 4), Coordinate("axis", dimensions)),
    ]
    attributes = {"settings": {"directions": "random", "normalization": "filter"}}
    recorder = MemoryRecorder({}, None)
    recorder.declare(GroupSchema("loss_surface", "a surface", variables, axes, attributes))
    heights = HEIGHTS if dimensions == 2 else HEIGHTS[:, 2]
    places = np.array([[0.9, -1.5], [0.5, 1.0], [0.0, 0.0], [np.nan, np.nan]])[:, :dimensions]
    for step in (10, 20):
        row = {
            "step": step,
            "surface_train_loss": heights * step,
            "surface_train_error": heights / 10,
            "axis_0": A,
            "trajectory_step": [2, 5, step, -1],
            "trajectory_coordinates": places,
            "trajectory_residual": [0.25, 0.125, 0.0, np.nan],
            "trajectory_loss": [30.0, 20.0, step, np.nan],
        }
        row |= {"axis_1": B} if dimensions == 2 else {}
        recorder.append("loss_surface", {"step": step, "status": 1, "reason": "NaN"} if failed else row)
    return recorder.run()


@pytest.mark.parametrize("kind", ["filled", "contour"])
def test_contours_lie_where_the_loss_is(kind):
    ax = plot_surface(record(), kind=kind)
    assert ax.get_xlim() == (-1, 1)
    assert ax.get_ylim() == (-2, 3)
    assert ax.get_xlabel() == "random direction 1, in lengths of the filters"
    assert "training examples at step 20" in ax.get_title(loc="left")
    assert "up to 0.25 off the plane (at step 2)" in ax.get_title(loc="left").replace("\n", " ")
    (line,) = [line for line in ax.lines if line.get_label() == "training"]
    np.testing.assert_array_equal(line.get_xydata(), [[0.9, -1.5], [0.5, 1.0], [0.0, 0.0]])
    # A rectangular grid that were transposed would not fit its axes: read a contour back and look up its height.
    paths = [p for c in ax.collections for p in c.get_paths()]
    levels = next(c.levels for c in ax.collections if hasattr(c, "levels"))
    assert len(paths) >= 2
    assert levels[0] == pytest.approx(20 * HEIGHTS.min())
    if kind == "contour":
        contour = next(c for c in ax.collections if hasattr(c, "levels"))
        index = len(levels) // 2
        points = contour.get_paths()[index].vertices
        on_grid = points[np.isin(points[:, 0], A)]
        heights = [np.interp(b, B, 20 * HEIGHTS[np.flatnonzero(a == A)[0]]) for a, b in on_grid]
        np.testing.assert_allclose(heights, levels[index], rtol=1e-6)


def test_a_relief_and_the_trajectory_at_its_true_losses():
    ax = plot_surface(record(), step=10, kind="3d")
    (line,) = ax.lines
    np.testing.assert_allclose(np.array(line.get_data_3d()).T[:, 2], [30.0, 20.0, 10.0])
    assert ax.get_zlabel() == "loss"


def test_error_and_no_trajectory():
    ax = plot_surface(record(), value="error", trajectory=False)
    assert [line.get_label() for line in ax.lines] == ["measured weights"]
    assert ax.get_title(loc="left").startswith("Error")


def test_a_line():
    ax = plot_surface(record(dimensions=1))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 20 * HEIGHTS[:, 2])
    np.testing.assert_allclose(ax.lines[-1].get_xydata(), [[0.9, 30], [0.5, 20], [0, 20]])
    assert "0.25 off the line" in ax.get_title(loc="left")


def test_a_dataset_of_the_function_is_drawn_too():
    dims = ("point_0", "point_1")
    data = xr.Dataset(
        {
            "surface_train_loss": (dims, HEIGHTS),
            "surface_train_error": (dims, HEIGHTS / 10),
            "axis_0": (dims[0], A),
            "axis_1": (dims[1], B),
        },
        attrs={"kind": "hessian", "normalization": "none"},
    )
    ax = plot_surface(data)
    assert ax.get_ylabel() == "eigenvector 2, l2 distance"
    assert "step" not in ax.get_title(loc="left")


def test_levels():
    wide = np.geomspace(0.01, 100, 50)
    levels, norm = contour_levels(wide, "loss")
    np.testing.assert_allclose(levels[1:] / levels[:-1], levels[1] / levels[0])
    assert levels[-1] == pytest.approx(20 * np.median(wide))  # what towers is cut off
    assert norm.vmin == levels[0]
    flat, _ = contour_levels(np.full((3, 3), 2.0), "loss")
    assert flat[0] < 2 < flat[-1]
    partly, _ = contour_levels(np.array([1.0, np.nan, 2.0, np.inf]), "loss")
    assert (partly[0], partly[-1]) == (1.0, 2.0)


def test_what_is_not_there_is_told():
    with pytest.raises(FileError, match="no row of 'loss_surface' that succeeded"):
        plot_surface(record(failed=True))
    with pytest.raises(FileError, match="it has 10, 20"):
        plot_surface(record(), step=15)
    with pytest.raises(FileError, match="surface_held_out_loss"):
        plot_surface(record(), split="held_out")
    with pytest.raises(ValueError, match="filled, contour, 3d"):
        plot_surface(record(), kind="heat")


class Recorded:
    """Stands for a plotly object and keeps what it was made of."""

    def __init__(self, *parts, **settings):
        self.parts, self.settings = list(parts), settings

    def add_trace(self, trace):
        self.parts.append(trace)

    def update_layout(self, **settings):
        self.settings |= settings

    def write_html(self, out, **_):
        Recorded.last = self
        with open(out, "w") as file:
            file.write("<html></html>")


def test_the_page_gets_the_grid_and_the_true_losses(monkeypatch, tmp_path):
    objects = types.ModuleType("plotly.graph_objects")
    objects.Figure = objects.Surface = objects.Scatter3d = Recorded
    package = types.ModuleType("plotly")
    package.graph_objects = objects
    monkeypatch.setitem(sys.modules, "plotly", package)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", objects)
    assert write_surface_html(record(), tmp_path / "s.html").read_text() == "<html></html>"
    surface, path = Recorded.last.parts
    np.testing.assert_array_equal(surface.settings["x"], A)
    np.testing.assert_array_equal(surface.settings["customdata"], 20 * HEIGHTS.T)
    np.testing.assert_array_equal(path.settings["customdata"], [[2, 30, 0.25], [5, 20, 0.125], [20, 20, 0]])
    with pytest.raises(LandscapeError, match="needs a plane"):
        write_surface_html(record(dimensions=1), tmp_path / "line.html")


def test_without_plotly_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(LandscapeError, match=r"landscape-geometry\[html\]"):
        write_surface_html(record(), tmp_path / "s.html")


def plane_and_curve():
    """A surface L = |w|^2 through three weights, and a curve that leaves the plane by 0.5."""
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.25, 0.75]])
    data = {f"axis_{i}": (f"point_{i}", np.linspace(-0.5, 1.5, 9)) for i in range(2)}
    grid = data["axis_0"][1][:, None] ** 2 + data["axis_1"][1] ** 2
    data |= {"surface_train_loss": (("point_0", "point_1"), grid), "plane_points": (("corner", "axis"), corners)}
    line = np.array([[0.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    curve = types.SimpleNamespace(coordinates=line, distances=np.array([0.0, 0.5, 0.0]), control_points=line)
    return xr.Dataset(data, attrs={"kind": "plane", "normalization": "none"}), corners, curve


@pytest.mark.parametrize("kind", ["filled", "contour"])
def test_a_plane_shows_its_three_weights_and_the_curves_on_it(kind):
    surface, corners, curve = plane_and_curve()
    ax = plot_surface(surface, kind=kind, curve=[curve, curve])
    drawn = [line for line in ax.lines if line.get_label() == "curve"]
    np.testing.assert_array_equal(drawn[0].get_xydata(), curve.coordinates)
    assert [line.get_linestyle() for line in drawn] == ["-", "--"]
    bends = next(line for line in ax.lines if line.get_label() == "control point")
    np.testing.assert_array_equal(bends.get_xydata(), [[0.5, 0.5]])
    assert {text.get_text(): text.xy for text in ax.texts if text.get_text() in "ABC"} == {
        letter: pytest.approx(tuple(corner)) for letter, corner in zip("ABC", corners, strict=True)
    }
    assert "Curves up to 0.5 off the plane" in ax.get_title(loc="left").replace("\n", " ")
    single = plot_surface(surface, kind=kind, curve=curve)
    assert "Curve up to 0.5" in single.get_title(loc="left").replace("\n", " ")


def test_a_curve_is_drawn_on_planes_only():
    surface, _, curve = plane_and_curve()
    with pytest.raises(ValueError, match="drawn on a plane"):
        plot_surface(surface, kind="3d", curve=curve)
