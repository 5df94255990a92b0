"""What Compressibility records is what landscape.compression gives on the same weights."""

from __future__ import annotations

import numpy as np
import pytest
from landscape_test_trainings import fit, objective_of, run_of

from landscape.callbacks import Compressibility
from landscape.compression import bits


def test_values_equal_the_direct_call(tmp_path):
    trainer = fit(tmp_path, Compressibility(tolerances=(0.01, 0.1), examples=40), max_epochs=8)
    row = run_of(trainer).dataset("compressibility").isel(step=-1)
    direct = bits(objective_of(trainer.lightning_module, 40), tolerances=(0.01, 0.1))
    for name in ("bits", "ideal_bits", "bits_per_parameter", "loss_rise", "reached"):
        np.testing.assert_array_equal(row[name], getattr(direct, name))
    np.testing.assert_array_equal(row["relative_step"], direct.knob)
    assert row["tolerance"].values.tolist() == [0.01, 0.1]
    assert (row["loss_rise"] <= row["tolerance"]).all()
    assert float(row["bits"][0]) > float(row["bits"][1]) > 0


def test_the_logged_scalars_are_at_the_middle_tolerance():
    measured = {"bits": [5.0, 4.0, 3.0], "bits_per_parameter": [0.5, 0.4, 0.3]}
    assert Compressibility(tolerances=(0.1, 0.2, 0.3)).logged(measured) == {"bits": 4.0, "bits_per_parameter": 0.4}


def test_arguments():
    with pytest.raises(ValueError, match="family is 'zip'; it must be 'uniform-tensor'"):
        Compressibility(family="zip")
    with pytest.raises(ValueError, match="tolerances"):
        Compressibility(tolerances=())
