"""What Sharpness records is what landscape.sharpness gives on the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from landscape_test_trainings import Blobs, fit, objective_of, run_of

from landscape import Objective, sharpness
from landscape.callbacks import Sharpness
from landscape.record._schema import COMMON
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


EVERY = [
    "gradient_norm",
    ("gradient_norm", {"adaptive": True}),
    ("sam", {"rho": 0.02}),
    ("m_sharpness", {"m": 12}),
    "asam",
    ("asam", {"variant": "elementwise", "rho": 0.5, "group": 12}),
    "average_case",
    ("average_case", {"adaptive": False, "rho": [0.05, 0.1, 0.2]}),
    ["worst_case", {"rho": 0.1, "norm": "linf", "steps": 3}],
    {"worst_case": {"rho": 0.1, "normalise_logits": True, "steps": 3}},
    {"keskar": {"rho": [1e-3, 5e-4]}},
    ("keskar", {"subspace": 10, "draws": 2}),
    ("pac_bayes", {"draws": 4, "tol": 0.2}),
    ("random_radius", {"threshold": 0.05, "draws": 3}),
    ("random_radius", {"threshold": 0.1, "draws": 3, "name": "radius_at_a_tenth"}),
    "fisher_rao",
    "lambda_max_chc",
    ("trace_chc", {"tol": 0.1}),
    ("relative_flatness", {"layer": "net.2"}),
    ("relative_flatness", {"layer": "net.2", "kind": "max"}),
]


def test_every_measure_by_name(tmp_path):
    x, y = Blobs().x[:40], Blobs().y[:40]
    batches = [(x[:24], y[:24]), (x[24:], y[24:])]  # given, as the seed would also choose among the examples
    callback = Sharpness(measures=EVERY, draws=6, batches=batches, seed=3, log=True, on_error="raise")
    trainer = fit(tmp_path, callback)
    data = run_of(trainer).dataset("sharpness")
    row = data.isel(step=-1)
    objective = Objective.from_lightning(trainer.lightning_module, batches)
    expected = {
        "gradient_norm": sharpness.gradient_norm(objective),
        "gradient_norm_adaptive": sharpness.gradient_norm(objective, adaptive=True),
        "sam": sam(objective, 0.02),
        "m_sharpness": sharpness.m_sharpness(objective, m=12),
        "asam": sharpness.asam(objective),
        "asam_elementwise": sharpness.asam(objective, 0.5, "elementwise", group=12),
        "average_case": average_case(objective, draws=6, seed=3),
        "average_case_plain": average_case(objective, [0.05, 0.1, 0.2], adaptive=False, draws=6, seed=3),
        "worst_case_linf": worst_case(objective, 0.1, norm="linf", steps=3, seed=3),
        "worst_case_normalised": worst_case(sharpness.normalised_logits(objective), 0.1, steps=3, seed=3),
        "keskar": sharpness.keskar(objective, [1e-3, 5e-4], seed=3),
        "keskar_subspace": sharpness.keskar(objective, subspace=10, draws=2, seed=3),
        "pac_bayes": sharpness.pac_bayes(objective, draws=4, tol=0.2, seed=3),
        "random_radius": sharpness.random_radius(objective, 0.05, draws=3, seed=3),
        "radius_at_a_tenth": sharpness.random_radius(objective, 0.1, draws=3, seed=3),
        "fisher_rao": sharpness.fisher_rao(objective),
        "lambda_max_chc": sharpness.lambda_max_chc(objective, seed=3),
        "trace_chc": sharpness.trace_chc(objective, tol=0.1, seed=3),
        "relative_flatness": sharpness.relative_flatness(objective, "net.2", seed=3),
        "relative_flatness_max": sharpness.relative_flatness(objective, "net.2", "max", seed=3),
    }
    exact = {"gradient_norm", "gradient_norm_adaptive", "sam", "fisher_rao", "lambda_max_chc"}
    own = {name for name in data.data_vars if name not in {variable.name for variable in COMMON}}
    over_examples = {f"{name}_stderr_sample" for name in expected}
    assert own == set(expected) | {f"{name}_stderr" for name in expected if name not in exact} | over_examples
    for name, found in expected.items():
        np.testing.assert_array_equal(row[name].values, found.value, err_msg=name)
        if name not in exact:
            np.testing.assert_array_equal(row[f"{name}_stderr"].values, found.stderr, err_msg=name)
        assert np.isfinite(found.stderr_sample).all(), name
        np.testing.assert_array_equal(row[f"{name}_stderr_sample"].values, found.stderr_sample, err_msg=name)
    assert data["average_case_plain"].dims == ("step", "rho_average_case_plain")
    assert data["rho_average_case_plain"].values.tolist() == [0.05, 0.1, 0.2]
    assert data["rho_keskar"].values.tolist() == [1e-3, 5e-4]
    assert "norm = linf" in data["worst_case_linf"].attrs["long_name"]
    logged = {name.removeprefix("landscape/") for name in trainer.callback_metrics if name.startswith("landscape/")}
    assert {"asam", "trace_chc", "trace_chc_stderr", "radius_at_a_tenth"} <= logged
    assert not {"keskar", "average_case_plain", "worst_case_linf_stderr"} & logged
    table = run_of(trainer).table()
    assert table["average_case_plain[rho_average_case_plain=0.1]"].iloc[-1] == expected["average_case_plain"][1].value


def test_the_settings_of_the_measures_stand_in_the_file(tmp_path):
    measures = [("average_case", {"rho": 0.2, "draws": 4}), ("sam", {"rho": [0.1, 0.2]}), {"worst_case": {"steps": 2}}]
    data = run_of(fit(tmp_path, Sharpness(measures=measures, rho_worst=0.3))).dataset("sharpness")
    settings = data.attrs["settings"]
    assert settings["measures"][0] == {"measure": "average_case", "name": "average_case", "rho": 0.2, "draws": 4}
    assert settings["measures"][1]["rho"] == [0.1, 0.2]
    assert settings["measures"][2]["rho"] == 0.3
    # Under the old names stands what was measured at, where it is one number.
    assert (settings["rho_average"], settings["rho_sam"], settings["rho_worst"]) == (0.2, 0.05, 0.3)


def test_the_default_is_what_it_was(tmp_path):
    data = run_of(fit(tmp_path, Sharpness(draws=4, steps=2))).dataset("sharpness")
    assert "measures" not in data.attrs["settings"]
    own = [name for name in data.data_vars if name not in {variable.name for variable in COMMON}]
    errors = ("stderr", "stderr_sample")
    numbers = ["gradient_norm", "sam", "average_case", "worst_case"]
    over_examples = {"gradient_norm_stderr_sample", "sam_stderr_sample"}
    both = {f"{name}_case_{error}" for name in ("average", "worst") for error in errors}
    assert set(own) == {*numbers, *over_examples, *both}
    assert set(Sharpness().scalar_names()) == {
        "sam",
        "average_case",
        "average_case_stderr",
        "worst_case",
        "gradient_norm",
    }


@pytest.mark.parametrize(
    ("measures", "words"),
    [
        ([], "measures is empty; give at least one of gradient_norm, sam"),
        (["samm"], "Sharpness has no measure 'samm'; did you mean sam?"),
        ([("sam", {"radius": 1})], "sam has no setting 'radius'; there are rho, adaptive, norm, seed, name"),
        ([("sam", {"rho": -1})], "rho is -1"),
        ([("sam", {"rho": []})], "rho is empty"),
        ([("sam", {"norm": "l1"})], "norm is 'l1'"),
        ([("asam", {"variant": "both"})], "variant is 'both'"),
        ([("average_case", {"draws": 1})], "draws is 1"),
        ([("m_sharpness", {"m": 0})], "m is 0"),
        ([("pac_bayes", {"epsilon": -1})], "epsilon is -1"),
        ([("random_radius", {"tol": 0})], "tol is 0"),
        (["sam", ("sam", {"rho": 1.0})], "two measures would be recorded as 'sam'; give one of them a name of its own"),
        ([3], "3 is no measure; give a name, a pair"),
    ],
)
def test_mistakes_in_the_list_are_told_at_once(measures, words):
    with pytest.raises(ValueError, match=words):
        Sharpness(measures=measures)


def test_two_lists_are_two_callbacks():
    keys = {Sharpness().state_key, Sharpness(measures=["sam"]).state_key, Sharpness(measures=["asam"]).state_key}
    assert len(keys) == 3
