"""The demo: a small grid end to end, and the words that it says about a table."""

import pandas as pd
import pytest

from landscape import open_run
from landscape.studies import digits_demo
from landscape.studies._digits_report import _pairs

BITS = digits_demo.BITS


def _table(sharper_noise: bool) -> pd.DataFrame:
    rows = []
    for batch_size in (16, 64):
        for noise in (0.0, 0.2):
            for solution in ("SWA", "decayed SGD"):
                high = noise > 0 if sharper_noise else noise == 0
                rows.append(
                    {"batch size": batch_size, "label noise": noise, "solution": solution, "seed": 0}
                    | {"average_case": 2.0 if high else 1.0, BITS: 10.0 + noise}
                )
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("sharper", "count"), [(True, 4), (False, 0)])
def test_pairs_are_counted_with_all_else_equal(sharper: bool, count: int) -> None:
    sentence = _pairs(_table(sharper), "label noise", BITS, "With noise it is", "than without")
    assert sentence == f"With noise it is sharper in {count} of 4 pairs and needs more bits in 4 of 4 than without."


@pytest.mark.slow
def test_quick_demo_writes_what_it_promises(tmp_path) -> None:
    points = digits_demo.main(out=tmp_path, quick=True, workers=2)
    assert len(points) == 8
    assert points[["average_case", BITS, "trace", "train_loss", "held_out_error"]].notna().all().all()
    figures = {path.name for path in tmp_path.glob("*.png")}
    expected = {"flatness-compressibility", "spectrum", "sharpness", "connectivity", "swa"}
    expected |= {"rate-distortion", "rank-correlations", "bound"}
    assert figures == {f"{name}.png" for name in expected}
    assert len(list((tmp_path / "runs").glob("*.h5"))) == 8
    assert len(list(tmp_path.glob("*.lsc"))) == 4
    run = open_run(tmp_path / "showcase.h5")
    assert set(run.groups) >= {
        "hessian_spectrum",
        "sharpness",
        "swa_trajectory",
        "mode_connectivity",
        "compressibility",
    }
    assert (run.table()["status"] == "ok").all()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "table.csv"), points, check_dtype=False)
