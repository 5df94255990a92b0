"""What LearningCoefficient records is what landscape.volume gives on the same weights."""

from __future__ import annotations

import numpy as np
import pytest
from landscape_test_trainings import Blobs, fit, run_of

from landscape import Objective
from landscape.callbacks import LearningCoefficient
from landscape.volume import learning_coefficient


def test_values_equal_the_direct_call(tmp_path):
    batches = [(Blobs().x[i : i + 20], Blobs().y[i : i + 20]) for i in (0, 20)]
    settings = {"chains": 2, "draws": 30, "gamma": 10.0, "seed": 3}
    callback = LearningCoefficient(**settings, n=500, batches=batches, log=True, on_error="raise")
    trainer = fit(tmp_path, callback)
    data = run_of(trainer).dataset("learning_coefficient")
    row = data.isel(step=-1)
    direct = learning_coefficient(Objective.from_lightning(trainer.lightning_module, batches), n=500, **settings)
    assert float(row["learning_coefficient"]) == direct.value
    assert float(row["learning_coefficient_stderr"]) == direct.stderr
    for name in ("rhat", "ess", "acceptance", "equilibrium", "stiffness", "gradient_noise", "nbeta", "step_size"):
        assert float(row[name]) == getattr(direct, name), name
    np.testing.assert_array_equal(row["by_chain"], direct.chains)
    np.testing.assert_array_equal(row["excess_loss"], direct.trace.astype(np.float32))
    recorded = row["excess_loss"].where(row["draw"] >= 0, drop=True)
    assert float(recorded.mean()) * direct.nbeta == pytest.approx(direct.value, rel=1e-5)
    raised = data["flag_name"].values[row["flag"].values == 1]
    assert tuple(raised) == direct.flags
    assert data.attrs["settings"]["n"] == 500
    assert float(trainer.callback_metrics["landscape/learning_coefficient"]) == pytest.approx(direct.value)


def test_layers_are_measured_one_by_one(tmp_path):
    batches = [(Blobs().x[i : i + 20], Blobs().y[i : i + 20]) for i in (0, 20)]
    settings = {"chains": 2, "draws": 20, "gamma": 10.0, "seed": 3}
    trainer = fit(tmp_path, LearningCoefficient(**settings, layers=True, batches=batches, on_error="raise"))
    data = run_of(trainer).dataset("learning_coefficient")
    objective = Objective.from_lightning(trainer.lightning_module, batches)
    layers = data["layer"].values.tolist()
    assert layers == list(dict.fromkeys(name.rpartition(".")[0] for name in objective.layout.names))
    assert len(layers) > 1
    for layer in layers:
        row = data.isel(step=-1).sel(layer=layer)
        direct = learning_coefficient(objective, parameters=layer, **settings)
        assert float(row["layer_learning_coefficient"]) == direct.value
        assert float(row["layer_learning_coefficient_stderr"]) == direct.stderr
        assert float(row["layer_rhat"]) == direct.rhat
        assert tuple(data["flag_name"].values[row["layer_flag"].values == 1]) == direct.flags


def test_a_diverged_chain_is_a_row_without_a_value(tmp_path):
    trainer = fit(tmp_path, LearningCoefficient(chains=2, draws=20, step_size=10.0, examples=40, on_error="raise"))
    row = run_of(trainer).dataset("learning_coefficient").isel(step=-1)
    assert np.isnan(float(row["learning_coefficient"]))
    assert str(row["status"].values) == "ok"
    assert int(row["flag"].sel(flag_name="diverged")) == 1


def test_arguments():
    for given, message in (
        ({"chains": 0}, "chains is 0; it must be at least 1"),
        ({"method": "hmc"}, "method is 'hmc'"),
        ({"step_size": -1.0}, "step_size is -1.0; it must be a positive number"),
        ({"gamma": -1.0}, "gamma is -1.0; it must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            LearningCoefficient(**given)
