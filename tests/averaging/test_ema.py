from __future__ import annotations

import numpy as np
import pytest

from landscape.averaging import ema, lawa

WEIGHTS = np.random.default_rng(0).normal(size=(9, 5))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_ema_has_the_weights_of_its_closed_form(make_run, decay):
    found = ema(make_run(WEIGHTS, dtype="f8"), decay, start=30, every=2)["weight"].numpy()
    rows = WEIGHTS[2::2]
    n = len(rows)
    shares = (1 - decay) * decay ** np.arange(n - 1, -1, -1)
    shares[0] = decay ** (n - 1)
    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, shares @ rows, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range_is_told(make_run, decay):
    with pytest.raises(ValueError, match="below 1"):
        ema(make_run(WEIGHTS), decay)


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({"k": 3}, [6, 7, 8]),
        ({"k": 3, "stop": 75}, [4, 5, 6]),
        ({"k": 3, "every": 2}, [4, 6, 8]),
        ({"k": 1}, [8]),
        ({"k": 50}, list(range(9))),
        ({"k": 5, "every": 3, "stop": 80}, [1, 4, 7]),
    ],
)
def test_lawa_is_the_mean_of_the_latest(make_run, settings, rows):
    found = lawa(make_run(WEIGHTS, dtype="f8"), **settings)["weight"].numpy()
    np.testing.assert_allclose(found, WEIGHTS[rows].mean(axis=0), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("settings", [{"k": 0}, {"every": 0}])
def test_lawa_needs_rows(make_run, settings):
    with pytest.raises(ValueError, match="at least 1"):
        lawa(make_run(WEIGHTS), **settings)
