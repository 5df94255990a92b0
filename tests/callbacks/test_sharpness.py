"""What Sharpness records is what landscape.sharpness gives on the same weights."""

from __future__ import annotations

import pytest
import torch
from landscape_test_trainings import fit, objective_of, run_of

from landscape.callbacks import Sharpness
from landscape.sharpness import average_case, sam, worst_case


@pytest.mark.parametrize("worst_group", [None, 12])
def test_values_equal_the_direct_call(tmp_path, worst_group):
    callback = Sharpness(
        rho_sam=0.1, rho_average=0.2, rho_worst=0.3, draws=6, steps=3, worst_group=worst_group, examples=40, seed=0
    )
    trainer = fit(tmp_path, callback)
    row = run_of(trainer).dataset("sharpness").isel(step=-1)
    objective = objective_of(trainer.lightning_module, 40)
    average = average_case(objective, 0.2, draws=6, seed=0)
    worst = worst_case(objective, 0.3, steps=3, group=worst_group, seed=0)
    assert float(row["sam"]) == sam(objective, 0.1).value
    assert (float(row["average_case"]), float(row["average_case_stderr"])) == (average.value, average.stderr)
    assert (float(row["worst_case"]), float(row["worst_case_stderr"])) == (worst.value, worst.stderr)
    assert float(row["gradient_norm"]) == float(torch.linalg.vector_norm(objective.gradient().double()))
    assert 0 < float(row["average_case"]) < float(row["worst_case"])


def test_settings_stand_in_the_file(tmp_path):
    data = run_of(fit(tmp_path, Sharpness(rho_sam=0.1, draws=4, steps=2))).dataset("sharpness")
    assert data.attrs["settings"]["rho_sam"] == 0.1
    assert data.attrs["settings"]["examples"] == 1024
    assert data.attrs["callback"] == "Sharpness"


def test_arguments():
    with pytest.raises(ValueError, match="draws is 1; it must be at least 2"):
        Sharpness(draws=1)
