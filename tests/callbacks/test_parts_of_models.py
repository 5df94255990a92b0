"""Callbacks that measure a part of a model: what they record, what they share, and which of them refuse it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from landscape_test_trainings import Plain, assert_identical, fit, left_behind, objective_of, run_of

from landscape import Objective
from landscape.callbacks import (
    Compressibility,
    HessianSpectrum,
    LearningCoefficient,
    LossSurface,
    ModeConnectivity,
    Sharpness,
    SWATrajectory,
    default_callbacks,
)
from landscape.compression import bits
from landscape.curvature import hessian
from landscape.volume import learning_coefficient

QUICK = {"k": 2, "probes": 2, "steps": 8, "max_matvecs": 20, "trace_max_matvecs": 20, "examples": 24}


def part_of(module, parameters):
    batches = objective_of(module, 24).batches
    return Objective.from_lightning(module, batches, parameters=parameters)


def test_the_spectrum_of_a_part_is_that_of_its_block_and_says_so(tmp_path):
    trainer = fit(tmp_path, HessianSpectrum(**QUICK, parameters="last_layer", layers=True), max_epochs=1)
    row = run_of(trainer).dataset("hessian_spectrum").isel(step=-1)
    part = part_of(trainer.lightning_module, ["net.2"])
    values = torch.linalg.eigvalsh(hessian(part.to(torch.float64)).dense())
    assert float(row["lambda_max"]) == pytest.approx(float(values[-1]), rel=1e-4)
    assert float(row["trace"]) == pytest.approx(float(values.sum()), rel=0.2)
    # Rows tell what trains, the group's attributes what was measured of it.
    assert int(row["n_parameters"]) == 67
    assert np.isnan(row["layer_trace"].sel(layer="net.0"))
    assert np.isfinite(row["layer_trace"].sel(layer="net.2"))
    attributes = run_of(trainer).dataset("hessian_spectrum").attrs
    measured = attributes["measured"]
    assert (measured["parameters"], measured["n_parameters"], measured["n_trainable"]) == (["last_layer"], 27, 67)
    assert attributes["settings"]["parameters"] == ["last_layer"]


def test_the_other_measures_take_the_part_too(tmp_path):
    part = {"parameters": ["net.2"], "examples": 24}
    callbacks = [
        Sharpness(measures=["gradient_norm"], **part),
        Compressibility(tolerances=(0.1,), **part),
        LearningCoefficient(draws=8, **part),
    ]
    trainer = fit(tmp_path, *callbacks, max_epochs=1)
    run, objective = run_of(trainer), part_of(trainer.lightning_module, ["net.2"])
    assert float(run.dataset("sharpness")["gradient_norm"][-1]) == pytest.approx(float(objective.gradient().norm()))
    assert float(run.dataset("compressibility")["bits"][-1, 0]) == bits(objective, tolerances=(0.1,)).bits[0]
    found = float(run.dataset("learning_coefficient")["learning_coefficient"][-1])
    assert found == learning_coefficient(objective, chains=2, draws=8).value


def test_callbacks_of_different_parts_measure_the_same_batches(tmp_path):
    callbacks = [HessianSpectrum(**QUICK), HessianSpectrum(**QUICK, parameters="net.0", name="first")]
    trainer = fit(tmp_path, *callbacks, max_epochs=1)
    run = run_of(trainer)
    prints = {run.dataset(group).attrs["measured"]["fingerprint"] for group in ("hessian_spectrum", "first")}
    assert len(prints) == 1
    assert len(callbacks[0]._session.data._held) == 1


def test_training_is_not_changed(tmp_path):
    module, other = Plain(), Plain()
    measured = fit(tmp_path / "a", HessianSpectrum(**QUICK, parameters="last_layer"), module=module)
    alone = fit(tmp_path / "b", module=other)
    assert_identical(left_behind(measured, module), left_behind(alone, other))


def test_a_part_that_is_not_there_leaves_a_failed_row(tmp_path):
    with pytest.warns(UserWarning, match="'lora' matches no trainable parameter; there are net.0.weight"):
        trainer = fit(tmp_path, HessianSpectrum(**QUICK, parameters="lora"), max_epochs=1)
    row = run_of(trainer).dataset("hessian_spectrum").isel(step=-1)
    assert "matches no trainable parameter" in str(row["reason"].values)


@pytest.mark.parametrize("kind", [SWATrajectory, ModeConnectivity, LossSurface])
def test_what_holds_the_whole_model_takes_no_part(kind):
    with pytest.raises(ValueError, match=rf"{kind.__name__} .*, so it takes no parameters=\['lora'\]"):
        kind(parameters="lora")


def test_other_mistakes_are_refused_at_once():
    with pytest.raises(ValueError, match="with weights='swa' measures a mean of all trainable parameters"):
        HessianSpectrum(parameters="lora", weights="swa")
    with pytest.raises(ValueError, match="engine='pyhessian' measures all trainable parameters"):
        HessianSpectrum(parameters="lora", engine="pyhessian")
    with pytest.raises(ValueError, match="parameters is 3"):
        Sharpness(parameters=3)


def test_the_default_callbacks_give_it_to_those_that_take_it():
    found = {type(c).__name__: c.measured.parameters for c in default_callbacks(parameters="lora")}
    assert found == {
        "HessianSpectrum": ("lora",),
        "Sharpness": ("lora",),
        "SWATrajectory": None,
        "Compressibility": ("lora",),
        "ModeConnectivity": None,
    }
