"""The table of rank correlations and its picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from landscape import FileError, open_run
from landscape.analysis import granulated_kendall, kendall, plot_rank_correlations, rank_correlations, sign_error
from landscape.record import Run

BITS = "bits[tolerance=0.03]"


@pytest.fixture(scope="module")
def runs(make_run: Callable[..., Run]) -> list[Run]:
    """A grid of 2 × 3 settings with two seeds; a third hyper-parameter moves along with the second."""
    rng = np.random.default_rng(0)
    found = []
    for width in (16, 64):
        for batch in (8, 32, 128):
            for seed in (0, 1):
                value = width / 64 + np.log2(batch) / 8
                hyper = {"width": width, "batch_size": batch, "lr": batch / 1000, "seed": seed, "epochs": 3}
                numbers = {
                    "sharpness": (1.0, 0.5, value + 0.3 * rng.normal()),
                    "bits": (9000.0, 8000.0, 1000 * value + 200 * rng.normal()),
                    "attributes": {"hyper_parameters": hyper},
                }
                found.append(make_run(**numbers))
    return found


def test_each_column_is_its_statistic(runs: list[Run]) -> None:
    table = rank_correlations(runs, n_bootstrap=50)
    assert table.attrs["axes"] == ["width"]  # batch_size and lr differ together, never alone
    points = pd.concat([run.table().iloc[[-1]] for run in runs], ignore_index=True)
    for name in ("width", "batch_size", "lr"):
        points[name] = [run.attributes["hyper_parameters"][name] for run in runs]
    row = table.loc["average_case"]
    tau = kendall(points["average_case"], points[BITS], n_bootstrap=50)
    assert (row["tau"], row["tau_low"], row["tau_high"], row["n"]) == (tau.tau, tau.low, tau.high, 12)
    psi = granulated_kendall(points, "average_case", BITS, ["width"], ["batch_size", "lr"], n_bootstrap=50)
    assert (row["granulated"], row["granulated_low"], row["granulated_high"]) == (psi.value, psi.low, psi.high)
    assert (row["n_groups"], table.attrs["resampled"]) == (3, "seeds")
    errors = sign_error(points, "average_case", BITS, ["width"], ["batch_size", "lr"], n_bootstrap=50)
    assert (row["sign_error"], row["worst_sign_error"]) == (errors.mean, errors.worst)
    assert (row["worst_low"], row["worst_high"]) == (errors.worst_low, errors.worst_high)
    assert row["worst_environment"].startswith("width: 16 against 64")
    assert row["n_environments"] == 3


def test_default_measures_are_those_of_flatness(runs: list[Run], full_run: Path) -> None:
    table = rank_correlations(runs, n_bootstrap=9)
    assert set(table.index) == {"average_case", "sam", "worst_case"}
    assert (np.diff(table["tau"]) <= 0).all()
    assert table.loc["sam", "label"] == "SAM sharpness (rise in loss) (not invariant)"
    both = rank_correlations([full_run, full_run], n_bootstrap=9)
    assert set(both.index) == {"average_case", "sam", "worst_case", "lambda_max", "trace", "n_eff[z=0.1]", "n_eff[z=1]"}


def test_axes_can_be_named(runs: list[Run]) -> None:
    table = rank_correlations(runs, ["average_case"], axes=["batch_size"], n_bootstrap=9)
    assert table.attrs["axes"] == ["batch_size"]
    assert np.isnan(table.loc["average_case", "granulated"])  # lr is held equal, so nothing can be compared
    with pytest.raises(FileError, match="attribute or hyper-parameter 'batchsize'; .*batch_size"):
        rank_correlations(runs, axes=["batchsize"])


def test_runs_without_a_measure_are_counted(runs: list[Run], make_run: Callable[..., Run]) -> None:
    lacking = make_run(sharpness=(np.nan,) * 3, attributes={"hyper_parameters": {"width": 16}})
    row = rank_correlations([*runs, lacking], ["average_case"], n_bootstrap=9).loc["average_case"]
    assert (row["n"], row["left_out"]) == (12, 1)


def test_a_measure_that_is_large_where_it_is_flat_is_turned() -> None:
    steps = {"run": ["a", "b", "c"], "step": [1, 1, 1], "train_loss": [0.1] * 3}
    table = pd.DataFrame({**steps, "random_radius": [3.0, 2.0, 1.0], "trace": [1.0, 2.0, 3.0], BITS: [1.0, 2.0, 3.0]})
    found = rank_correlations(table, n_bootstrap=9)
    assert found["tau"].to_dict() == {"random_radius": 1.0, "trace": 1.0}
    assert found["turned"].to_dict() == {"random_radius": True, "trace": False}
    labels = [text.get_text() for text in plot_rank_correlations(found)[0].get_yticklabels()]
    assert sorted(labels) == ["Hessian trace†", "− adaptive radius along random directions"]


def test_matched_loss_chooses_the_rows(make_run: Callable[..., Run]) -> None:
    several = [make_run(sharpness=(s, 1.0, 1.0), bits=(s, 1.0, 1.0), loss=(0.5, 0.1, 0.01)) for s in (1.0, 2.0, 3.0)]
    assert np.isnan(rank_correlations(several, n_bootstrap=9)["tau"]).all()
    matched = rank_correlations(several, ["average_case"], matched_loss=0.4, n_bootstrap=9)
    assert matched.loc["average_case", "tau"] == 1.0
    assert matched.attrs["losses"] == (0.5, 0.5)


def test_what_no_run_has_is_told(runs: list[Run]) -> None:
    with pytest.raises(FileError, match=r"did you mean bits\[tolerance=0\.03\]"):
        rank_correlations(runs, target="bits[tolerance=0.3]")
    with pytest.raises(FileError, match="no column 'sharp'|has a column 'sharp'"):
        rank_correlations(runs, ["sharp"])
    with pytest.raises(FileError, match="in two runs or more"):
        rank_correlations(runs[:1])
    with pytest.raises(ValueError, match="matched_loss is nan"):
        rank_correlations(runs, matched_loss=np.nan)


def marks(ax: Any, label: str) -> np.ndarray:
    (line,) = (line for line in ax.lines if line.get_label() == label)
    return np.asarray(line.get_xydata())


def test_dots_and_bars_stand_at_the_numbers(runs: list[Run]) -> None:
    table = rank_correlations(runs, n_bootstrap=50)
    left, right = plot_rank_correlations(table)
    assert marks(left, "Kendall's τ over all runs")[:, 0] == pytest.approx(table["tau"])
    assert marks(left, "granulated Ψ, one axis at a time")[:, 0] == pytest.approx(table["granulated"])
    assert marks(right, "mean over environments")[:, 0] == pytest.approx(table["sign_error"])
    assert marks(right, "worst environment")[:, 0] == pytest.approx(table["worst_sign_error"])
    bars = np.array([[segment[0][0], segment[1][0]] for segment in left.collections[0].get_segments()])
    assert bars == pytest.approx(table[["tau_low", "tau_high"]].to_numpy())
    # The first row stands on top, each dot near its label.
    heights = marks(left, "Kendall's τ over all runs")[:, 1]
    assert (np.diff(heights) < 0).all()
    ticks = dict(zip(left.get_yticks(), (text.get_text() for text in left.get_yticklabels()), strict=True))
    assert [ticks[round(height)] for height in heights] == [
        label.replace(" (rise in loss)", "").replace(" (not invariant)", "†") for label in table["label"]
    ]


def test_the_caption_says_what_was_ranked(runs: list[Run], make_run: Callable[..., Run]) -> None:
    left, _ = plot_rank_correlations(runs, n_bootstrap=20)
    text = left.get_title(loc="left").replace("\n", " ")
    assert text.startswith("Ranked against: code length at a loss rise ≤ 0.03 (bits); 12 runs. Training losses 0.1 to")
    assert "Axes: width; Ψ and mean resampled over seeds." in text
    assert "†: not invariant" in text
    with pytest.warns(UserWarning, match=r"not at matched loss: their training losses 0\.1 to 0\.4"):
        left, right = plot_rank_correlations([make_run(loss=(1.0, 0.5, last)) for last in (0.1, 0.4)], n_bootstrap=9)
    text = left.get_title(loc="left").replace("\n", " ")
    assert "NOT at matched loss: training losses 0.1 to 0.4" in text
    assert "so there is no Ψ" in text
    assert [each.get_text() for each in right.texts] == ["no two runs differ\nin one setting alone"]


def test_settings_belong_to_the_table(runs: list[Run], grid: list[Path]) -> None:
    table = rank_correlations(runs, n_bootstrap=9)
    with pytest.raises(ValueError, match="seed: give settings to rank_correlations"):
        plot_rank_correlations(table, seed=1)
    tables = [open_run(path).table().assign(run=str(path)) for path in grid]
    left, _ = plot_rank_correlations(pd.concat(tables), n_bootstrap=9)
    assert len(left.get_yticks()) == 3
