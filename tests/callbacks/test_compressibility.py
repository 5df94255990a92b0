"""What Compressibility records is what landscape.compression gives on the same weights."""

from __future__ import annotations

import numpy as np
import pytest
from landscape_test_trainings import Coarser, fit, objective_of, run_of

from landscape.callbacks import Compressibility
from landscape.compression import bits, noise_radius, quantisation_law
from landscape.compression._families import FAMILIES


def test_values_equal_the_direct_call(tmp_path):
    trainer = fit(tmp_path, Compressibility(tolerances=(0.01, 0.1), examples=40), max_epochs=8)
    row = run_of(trainer).dataset("compressibility").isel(step=-1)
    direct = bits(objective_of(trainer.lightning_module, 40), tolerances=(0.01, 0.1))
    for name in ("bits", "ideal_bits", "bits_per_parameter", "loss_rise", "reached"):
        np.testing.assert_array_equal(row[name], getattr(direct, name))
    np.testing.assert_array_equal(row["relative_step"], direct.knob)
    np.testing.assert_array_equal(row["tensor_bits"], direct.tensor_bits)
    assert row["tensor"].values.tolist() == direct.names.tolist()
    assert not {"family", "knob", "noise_radius", "bits_back", "law_curvature", "predicted_step"} & set(row.variables)
    assert row["tolerance"].values.tolist() == [0.01, 0.1]
    assert (row["loss_rise"] <= row["tolerance"]).all()
    assert float(row["bits"][0]) > float(row["bits"][1]) > 0


def test_several_families_stand_along_a_dimension(tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "coarser", Coarser())
    names = ["coarser", "uniform-tensor"]
    callback = Compressibility(tolerances=(0.01, 0.1), family=names, examples=40, log=True, on_error="raise")
    trainer = fit(tmp_path, callback, max_epochs=8)
    run = run_of(trainer)
    row = run.dataset("compressibility").isel(step=-1)
    assert row["family"].values.tolist() == names
    objective = objective_of(trainer.lightning_module, 40)
    direct = [bits(objective, name, (0.01, 0.1)) for name in names]
    for name in ("bits", "ideal_bits", "bits_per_parameter", "loss_rise", "reached", "knob", "tensor_bits"):
        np.testing.assert_array_equal(row[name], [getattr(one, name) for one in direct])
    assert float(trainer.callback_metrics["landscape/bits_coarser_0.1"]) == direct[0].bits[1]
    table = run.table()
    assert table["bits[coarser,tolerance=0.01]"].iloc[-1] == direct[0].bits[0]
    assert table["bits[uniform-tensor,tolerance=0.1]"].iloc[-1] == direct[1].bits[1]


def test_noise_and_law_equal_the_direct_calls(tmp_path):
    settings = {"tolerances": (0.01, 0.1), "examples": 40, "seed": 0, "on_error": "raise"}
    trainer = fit(tmp_path, Compressibility(noise_radius="tensor", law=True, **settings), max_epochs=8)
    data = run_of(trainer).dataset("compressibility")
    row, objective = data.isel(step=-1), objective_of(trainer.lightning_module, 40)
    noise = noise_radius(objective, (0.01, 0.1), "tensor")
    np.testing.assert_array_equal(row["noise_radius"], noise.sigma)
    np.testing.assert_array_equal(row["noise_radius_stderr"], noise.stderr)
    np.testing.assert_array_equal(row["bits_back"], noise.bits)
    law = quantisation_law(objective, bits(objective, tolerances=(0.01, 0.1)))
    assert float(row["law_curvature"]) == law.curvature
    assert float(row["law_curvature_stderr"]) == law.curvature_stderr
    np.testing.assert_array_equal(row["predicted_step"], law.predicted_knob)
    np.testing.assert_array_equal(row["predicted_step_stderr"], law.predicted_knob_stderr)
    assert data.attrs["settings"]["noise_radius"] == "tensor"
    assert Compressibility(noise_radius=True).settings()["noise_radius"] is True


def test_the_logged_scalars_are_at_the_middle_tolerance():
    measured = {"bits": [5.0, 4.0, 3.0], "bits_per_parameter": [0.5, 0.4, 0.3]}
    assert Compressibility(tolerances=(0.1, 0.2, 0.3)).logged(measured) == {
        "bits_0.2": 4.0,
        "bits_per_parameter_0.2": 0.4,
    }


def test_arguments(monkeypatch):
    with pytest.raises(ValueError, match="family is 'zip'; it must be"):
        Compressibility(family="zip")
    with pytest.raises(ValueError, match="family is 'zip'; it must be"):
        Compressibility(family=["uniform-tensor", "zip"])
    for family in ([], ["uniform-tensor", "uniform-tensor"]):
        with pytest.raises(ValueError, match="give one family of codes, or a list of different ones"):
            Compressibility(family=family)
    with pytest.raises(ValueError, match="noise_radius is 'layer'; it must be 'weight' or 'filter' or 'tensor' or"):
        Compressibility(noise_radius="layer")
    monkeypatch.setitem(FAMILIES, "coarser", Coarser())
    with pytest.raises(ValueError, match="law=True needs a family of uniform grids, and family is 'coarser'"):
        Compressibility(family="coarser", law=True)
    with pytest.raises(ValueError, match="tolerances"):
        Compressibility(tolerances=())
