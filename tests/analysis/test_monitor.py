"""The picture of the monitored sharpness: numbers on its axes, stability lines, and what is left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt

from landscape.analysis import plot_monitor
from landscape.record import GroupSchema, Variable
from landscape.record._memory import MemoryRecorder

STEPS = (10, 20, 30)


def recorded(optimizer: dict[str, Any], **columns: tuple[float, ...]) -> Any:
    recorder = MemoryRecorder({"optimizer": optimizer})
    recorder.declare(GroupSchema("sharpness_monitor", "", [Variable(name) for name in columns]))
    for index, step in enumerate(STEPS):
        row = {name: values[index] for name, values in columns.items()}
        common = {
            "step": step,
            "learning_rate": 0.1 * (index + 1),
            "train_loss": 1.0 / step,
            "status": 2 * (index == 1),
        }
        recorder.append("sharpness_monitor", common | row)
    return recorder.run()


def line(ax: Any, label: str) -> np.ndarray:
    (found,) = (one.get_ydata() for one in ax.lines if one.get_label() == label)
    return np.asarray(found, dtype=float)


@pytest.fixture(autouse=True)
def _closed() -> Any:
    yield
    plt.close("all")


def test_gradient_descent_has_its_lines_on_both_panels() -> None:
    run = recorded(
        {"name": "SGD", "momentum": 0.5, "weight_decay": 0.25},
        critical_sharpness=(1.0, np.inf, 30.0),
        critical_sharpness_quadratic=(1.1, -2.0, 31.0),
        directional_sharpness=(0.5, 0.6, 0.7),
        lambda_max=(9.0, 12.0, 20.0),
    )
    above, middle, below = plot_monitor(run)
    np.testing.assert_allclose(line(above, "critical sharpness 2/ηc"), [1.0, np.nan, 30.0])
    np.testing.assert_allclose(line(above, "by the quadratic model"), [1.1, -2.0, 31.0])
    # Logarithmic axes leave out what is not positive, instead of drawing it at their end.
    (model,) = (one for one in above.lines if one.get_label() == "by the quadratic model")
    assert not np.isfinite(model.get_transform().transform([(20.0, -2.0)])).all()
    np.testing.assert_allclose(line(above, "2/η"), [20.0, 10.0, 20 / 3])
    np.testing.assert_allclose(line(middle, "largest Hessian eigenvalue"), [9.0, 12.0, 20.0])
    np.testing.assert_allclose(line(middle, "(2+2β)/η, β = 0.5"), [30 - 0.25, 15 - 0.25, 10 - 0.25])
    np.testing.assert_allclose(line(middle, "directional sharpness (Hessian along the step)"), [0.5, 0.6, 0.7])
    np.testing.assert_allclose(line(below, "training loss"), [0.1, 0.05, 1 / 30])
    assert above.get_ylabel() == "sharpness along the step\n(units of 1/learning rate)"
    assert line(above, "measurement failed").shape == (1,)


def test_bands_are_one_standard_error_over_examples() -> None:
    run = recorded(
        {"name": "SGD"},
        critical_sharpness=(1.0, 2.0, 30.0),
        critical_sharpness_stderr_sample=(0.25, np.nan, 40.0),
        lambda_max=(9.0, 12.0, 20.0),
    )
    above, middle, below = plot_monitor(run)
    band, explained = above.collections
    assert explained.get_label() == "± 1 standard error"
    assert band.get_label() not in [one.get_text() for one in above.get_legend().get_texts()]
    corners = np.concatenate([path.vertices for path in band.get_paths()])
    first = corners[corners[:, 0] == 10.0][:, 1]
    assert (first.min(), first.max()) == pytest.approx((0.75, 1.25))
    # A band down to zero ends at a tenth of the value on a logarithmic axis, instead of vanishing.
    last = corners[corners[:, 0] == 30.0][:, 1]
    assert (last.min(), last.max()) == pytest.approx((3.0, 70.0))
    assert not middle.collections
    assert not below.collections


def test_bars_of_the_noise_scale_that_reach_zero_keep_their_stem() -> None:
    run = recorded(
        {"name": "SGD"},
        lambda_max=(1.0, 1.0, 1.0),
        gradient_noise_scale=(10.0, 200.0, np.nan),
        gradient_noise_scale_stderr=(3.0, 900.0, np.nan),
    )
    below = plot_monitor(run)[2]
    (bars,) = (one for one in below.figure.axes[-1].containers)
    stems = [path.vertices[:, 1] for path in bars.lines[2][0].get_paths()]
    np.testing.assert_allclose(stems[0], [7.0, 13.0])
    np.testing.assert_allclose(stems[1], [20.0, 1100.0])  # on a logarithmic axis down to a tenth of the value


def test_adam_has_its_line_on_the_preconditioned_sharpness() -> None:
    run = recorded(
        {"name": "Adam", "betas": [0.9, 0.999], "weight_decay": 0.1},
        critical_sharpness=(1.0, 2.0, 3.0),
        directional_sharpness=(0.5, 0.6, 0.7),
        preconditioned_sharpness=(100.0, 200.0, 300.0),
        gradient_noise_scale=(50.0, np.nan, 70.0),
        gradient_noise_scale_stderr=(5.0, np.nan, 7.0),
    )
    _, middle, below = plot_monitor(run)
    labels = {one.get_label() for one in middle.lines}
    assert labels == {"preconditioned sharpness", "(2+2β₁)/((1−β₁)η), β₁ = 0.9"}
    np.testing.assert_allclose(line(middle, "(2+2β₁)/((1−β₁)η), β₁ = 0.9"), [380.0, 190.0, 380 / 3])
    (other,) = (ax for ax in below.figure.axes if ax.get_ylabel() == "noise scale (examples)")
    np.testing.assert_allclose(other.lines[0].get_ydata(), [50.0, np.nan, 70.0])


def test_an_optimizer_without_a_line_has_none() -> None:
    run = recorded({"name": "NAdam"}, critical_sharpness=(1.0, 2.0, 3.0), lambda_max=(9.0, 12.0, 20.0))
    _, middle, _ = plot_monitor(run)
    assert [one.get_label() for one in middle.lines] == ["largest Hessian eigenvalue"]


def test_three_axes_are_needed() -> None:
    run = recorded({"name": "SGD"}, critical_sharpness=(1.0, 2.0, 3.0))
    _, given = plt.subplots(3)
    assert list(plot_monitor(run, given)) == list(given)
    with pytest.raises(ValueError, match="has 3 panels, and ax holds 1"):
        plot_monitor(run, given[0])
