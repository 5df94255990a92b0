"""What HessianSpectrum records is what landscape.curvature gives on the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from landscape_test_trainings import Plain, fit, objective_of, run_of

from landscape.callbacks import HessianSpectrum
from landscape.curvature import (
    condition_number,
    ggn,
    hessian,
    layer_curvature,
    negative_share,
    operator_gap,
    pyhessian_spectrum,
    spectral_entropy,
    spectrum,
    trace,
)


def test_values_equal_the_direct_call(tmp_path):
    settings = {"k": 3, "k_bottom": 2, "tol": 1e-3, "probes": 3, "steps": 10, "max_matvecs": 30}
    callback = HessianSpectrum(**settings, trace_max_matvecs=20, trace_tol=0.05, z=(0.01, 1.0), examples=40, seed=0)
    trainer = fit(tmp_path, callback)
    row = run_of(trainer).dataset("hessian_spectrum").isel(step=-1)
    operator = hessian(objective_of(trainer.lightning_module, 40))
    direct = spectrum(operator, **settings, seed=0)
    known = (direct.top, direct.bottom)
    estimate = trace(operator, method="hutch++", tol=0.05, seed=0, max_matvecs=20, known=known)
    for end, pairs in (("top", direct.top), ("bottom", direct.bottom)):
        np.testing.assert_array_equal(row[f"eigenvalues_{end}"], pairs.values)
        np.testing.assert_array_equal(row[f"residuals_{end}"], pairs.residuals)
        np.testing.assert_array_equal(row[f"converged_{end}"], pairs.converged_each)
    assert (float(row["lambda_max"]), float(row["lambda_min"])) == (direct.top.values[0], direct.bottom.values[0])
    assert (float(row["trace"]), float(row["trace_stderr"])) == (estimate.value, estimate.stderr)
    found = [direct.density.n_eff(z) for z in (0.01, 1.0)]
    np.testing.assert_array_equal(row["n_eff"], [one.value for one in found])
    np.testing.assert_array_equal(row["n_eff_stderr"], [one.stderr for one in found])
    # Fewer examples than parameters: their number is the most that the Hessian of a fitted model can use.
    np.testing.assert_allclose(row["n_eff_complement"], [40 - one.value for one in found])
    for name, one in (
        ("negative_share", negative_share(direct.density)),
        ("spectral_entropy", spectral_entropy(direct.density)),
    ):
        assert (float(row[name]), float(row[f"{name}_stderr"])) == (one.value, one.stderr)
    assert float(row["condition_number"]) == direct.top.values[0] / direct.top.values[2]
    used = direct.density.nodes.shape[1]
    np.testing.assert_array_equal(row["density_nodes"][:, :used], direct.density.nodes)
    np.testing.assert_array_equal(row["density_weights"][:, :used], direct.density.weights)
    np.testing.assert_array_equal(row["density_weights"][:, used:], 0.0)
    np.testing.assert_allclose(row["density_weights"].sum("node"), 1.0, rtol=1e-6)
    assert int(row["n_matvecs"]) == operator.n_matvecs


def test_by_default_the_search_stops_at_a_tenth_of_the_error_over_examples(tmp_path):
    callback = HessianSpectrum(k=3, k_bottom=1, examples=64, batch_size=8, probes=1, steps=5)
    trainer = fit(tmp_path, callback, module=Plain(width=100))  # beyond the sizes that are built whole
    row = run_of(trainer).dataset("hessian_spectrum").isel(step=-1)
    assert callback.tol == "sample"
    assert np.isfinite(row["eigenvalues_top_stderr_sample"]).all()
    assert float(row["lambda_max_stderr_sample"]) == float(row["eigenvalues_top_stderr_sample"][0])
    assert 1e-4 <= float(row["eigenvalue_tolerance"]) <= 0.05
    assert float(row["eigenvalue_tolerance"]) != 1e-3
    with pytest.raises(ValueError, match="tol is 'exact'; give a relative accuracy such as 1e-3, or 'sample'"):
        HessianSpectrum(tol="exact")


def test_a_single_batch_has_no_error_over_examples(tmp_path):
    trainer = fit(tmp_path, HessianSpectrum(k=2, k_bottom=1, examples=40, batch_size=40, probes=1, steps=5))
    row = run_of(trainer).dataset("hessian_spectrum").isel(step=-1)
    for name in ("lambda_max", "lambda_min", "trace", "negative_share"):
        assert np.isfinite(row[name])
        assert np.isnan(row[f"{name}_stderr_sample"])
    assert float(row["eigenvalue_tolerance"]) == 1e-3


def test_named_dimensions(tmp_path):
    trainer = fit(tmp_path, HessianSpectrum(k=3, k_bottom=1, probes=2, z=(0.1, 1.0)))
    data = run_of(trainer).dataset("hessian_spectrum")
    assert data["eigenvalues_top"].dims == ("step", "eigenvalue")
    assert data["eigenvalues_bottom"].dims == ("step", "eigenvalue_bottom")
    assert data["density_nodes"].dims == ("step", "probe", "node")
    assert data["n_eff"].sel(z=0.1).dims == ("step",)
    assert (data["n_eff"].sel(z=0.1) > data["n_eff"].sel(z=1.0)).all()
    assert data.attrs["settings"]["k"] == 3


def test_pyhessian_gives_its_own_numbers(tmp_path):
    trainer = fit(tmp_path, HessianSpectrum(k=1, tol=0.01, engine="pyhessian"))
    row = run_of(trainer).dataset("hessian_spectrum").isel(step=-1)
    pairs, estimate = pyhessian_spectrum(objective_of(trainer.lightning_module), 1, 0.01, 0)
    assert float(row["lambda_max"]) == pairs.values[0]
    assert float(row["trace"]) == estimate.value
    assert np.isnan(row["lambda_min"])
    assert np.isnan(row["density_nodes"]).all()
    exact = HessianSpectrum(k=1, max_matvecs=67)
    precise = run_of(fit(tmp_path / "exact", exact)).dataset("hessian_spectrum")["lambda_max"].values[-1]
    assert float(row["lambda_max"]) == pytest.approx(precise, rel=0.05)


def test_pyhessian_does_not_measure_in_train_mode(tmp_path):
    with pytest.warns(UserWarning, match="PyHessian measures in eval mode only"):
        fit(tmp_path, HessianSpectrum(k=1, engine="pyhessian", mode="train"))


def test_arguments():
    with pytest.raises(ValueError, match="engine is 'arpack'; it must be 'lanczos' or 'pyhessian'"):
        HessianSpectrum(engine="arpack")
    with pytest.raises(ValueError, match="trace_max_matvecs is 4; it must be at least 8"):
        HessianSpectrum(trace_max_matvecs=4)
    with pytest.raises(ValueError, match="k is 0; it must be at least 1"):
        HessianSpectrum(k=0)


def test_a_float64_module_is_measured_in_float64(tmp_path):
    class Double(Plain):
        def __init__(self):
            super().__init__()
            self.double()

        def training_step(self, batch, batch_idx):
            return super().training_step((batch[0].double(), batch[1]), batch_idx)

    data = run_of(fit(tmp_path, HessianSpectrum(k=2, max_matvecs=67, tol=1e-9), module=Double())).dataset(
        "hessian_spectrum"
    )
    assert data.attrs["measured"]["dtype"] == "float64"
    assert (data["residuals_top"].values < 1e-8).all()
    assert torch.get_default_dtype() == torch.float32


def test_tracking_follows_the_top_from_event_to_event(tmp_path):
    callback = HessianSpectrum(k=3, track=True, every_n_steps=1, examples=40)
    exact = HessianSpectrum(k=3, every_n_steps=1, examples=40, name="exact", probes=1, steps=5)
    trainer = fit(tmp_path, callback, exact, max_epochs=3)
    run = run_of(trainer)
    tracked, known = run.dataset("hessian_spectrum"), run.dataset("exact")
    assert (tracked.status == "ok").all()
    assert int(tracked.cold_start[0]) == 1
    warm = tracked.cold_start.values == 0
    assert warm.any()
    assert (tracked.n_matvecs.values[warm] >= 5).all()
    assert (tracked.n_matvecs.values[warm] <= 24).all()
    sure = tracked.converged_top.values == 1
    assert sure.any()
    relative = np.abs(tracked.eigenvalues_top.values / known.eigenvalues_top.values - 1)
    assert relative[sure].max() < 0.02
    assert np.isnan(tracked.subspace_angles.values[0]).all()
    assert ((tracked.subspace_angles.values[1:] >= 0) & (tracked.subspace_angles.values[1:] <= np.pi / 2)).all()
    share = tracked.gradient_share.values
    assert ((share > 0) & (share <= 1)).all()
    assert np.isnan(tracked.trace.values).all()
    assert callback._tracked is None  # let go of when the fit ends


@pytest.mark.parametrize("track", [False, True])
def test_layers_and_gap(tmp_path, track):
    settings = {"layers": True, "gap": True, "track": track, "trace_max_matvecs": 30, "trace_tol": 0.05}
    callback = HessianSpectrum(k=3, tol=1e-3, **settings)
    trainer = fit(tmp_path, callback, module=Plain(width=16))
    data = run_of(trainer).dataset("hessian_spectrum")
    assert (data.status == "ok").all()
    row = data.isel(step=-1)
    objective = objective_of(trainer.lightning_module)
    operator, gauss_newton = hessian(objective), ggn(objective)
    blocks = operator.layers()
    assert row["layer"].values.tolist() == list(blocks) == ["net.0", "net.2"]
    direct = layer_curvature(blocks, "hutch++", tol=0.05, max_matvecs=30)
    for index, layer in enumerate(direct):
        here = row.isel(layer=index)
        assert (float(here["layer_trace"]), float(here["layer_lambda_max"])) == (layer.trace.value, layer.lambda_max)
        assert (float(here["layer_trace_stderr"]), float(here["layer_residual"])) == (
            layer.trace.stderr,
            layer.residual,
        )
        assert bool(here["layer_converged"]) == layer.converged
        eigenvalues = torch.linalg.eigvalsh(blocks[layer.name].dense().double())
        assert float(here["layer_lambda_max"]) == pytest.approx(float(eigenvalues[-1]), rel=1e-3)
        error = 4 * float(here["layer_trace_stderr"]) + 1e-5
        assert abs(float(here["layer_trace"]) - float(eigenvalues.sum())) <= error
    gap = operator_gap(operator, gauss_newton)
    assert (float(row["gap_frobenius"]), float(row["gap_frobenius_stderr"])) == (
        gap.frobenius.value,
        gap.frobenius.stderr,
    )
    assert (float(row["gap_trace"]), float(row["gap_trace_stderr"])) == (gap.trace.value, gap.trace.stderr)
    assert float(row["gap_cosine"]) == gap.cosine
    dense, other = operator.dense().double(), gauss_newton.dense().double()
    exact = float(torch.linalg.matrix_norm(dense - other) / torch.linalg.matrix_norm(dense))
    assert abs(gap.frobenius.value - exact) <= 4 * gap.frobenius.stderr
    top = row["eigenvalues_top"].values
    assert float(row["condition_number"]) == condition_number(top) == pytest.approx(top[0] / top[2])
    least = 40 + direct[0].trace.n_matvecs + direct[1].trace.n_matvecs
    assert int(row["n_matvecs"]) > least


def test_layers_alone_and_of_a_root_parameter(tmp_path):
    class Scaled(Plain):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def training_step(self, batch, batch_idx):
            return torch.nn.functional.cross_entropy(self.scale * self.net(batch[0]), batch[1])

    data = run_of(fit(tmp_path, HessianSpectrum(k=2, layers=True), module=Scaled())).dataset("hessian_spectrum")
    assert (data.status == "ok").all()
    assert set(data["layer"].values) == {"", "net.0", "net.2"}
    assert "gap_frobenius" not in data
    root = data.sel(layer="").isel(step=-1)
    assert float(root["layer_trace"]) == pytest.approx(float(root["layer_lambda_max"]))


def test_a_gap_where_there_is_no_gauss_newton_matrix_leaves_the_spectrum(tmp_path):
    class Odd(Plain):
        def training_step(self, batch, batch_idx):
            return self.net(batch[0]).square().logsumexp(1).mean()

    with pytest.warns(UserWarning, match="its outputs are not known"):
        trainer = fit(tmp_path, HessianSpectrum(k=2, gap=True), module=Odd())
    data = run_of(trainer).dataset("hessian_spectrum")
    assert (data.status == "partial").all()
    assert all(text.startswith("gap: ") for text in data["reason"].values)
    assert np.isnan(data["gap_trace"]).all()
    assert np.isfinite(data["lambda_max"]).all()


def test_pyhessian_knows_neither_layers_nor_gap():
    for asked in ({"layers": True}, {"gap": True}):
        with pytest.raises(ValueError, match="engine='pyhessian' knows neither layers nor gap"):
            HessianSpectrum(engine="pyhessian", **asked)


def test_tracking_goes_by_itself():
    with pytest.raises(ValueError, match="track=True"):
        HessianSpectrum(track=True, engine="pyhessian")


def test_an_event_within_a_budget_of_memory(tmp_path):
    settings = {"k": 2, "k_bottom": 1, "probes": 2, "steps": 12, "max_matvecs": 100, "trace_max_matvecs": 30}
    module = Plain(width=80)  # above 512 parameters no matrix is built
    trainer = fit(tmp_path, HessianSpectrum(**settings, memory_budget=40_000), module=module, max_epochs=1)
    run = run_of(trainer)
    row = run.dataset("hessian_spectrum").isel(step=-1)
    assert str(row["status"].values) == "ok"
    values = torch.linalg.eigvalsh(hessian(objective_of(module).to(torch.float64)).dense()).numpy()
    np.testing.assert_allclose(row["eigenvalues_top"], values[::-1][:2], rtol=1e-3)
    np.testing.assert_allclose(row["eigenvalues_bottom"], values[:1], rtol=1e-3)
    assert abs(float(row["trace"]) - values.sum()) <= 4 * float(row["trace_stderr"])
    assert run.dataset("hessian_spectrum").attrs["settings"]["memory_budget"] == 40_000


def test_a_budget_that_holds_nothing_is_a_failed_row_with_the_cure(tmp_path):
    with pytest.warns(UserWarning, match="give more memory"):
        trainer = fit(tmp_path, HessianSpectrum(k=2, memory_budget=2000), module=Plain(width=80), max_epochs=1)
    assert "give more memory" in str(run_of(trainer).dataset("hessian_spectrum").isel(step=-1)["reason"].values)


def test_budgets_that_are_none_are_refused_at_once():
    with pytest.raises(ValueError, match="give bytes as a number above 0"):
        HessianSpectrum(memory_budget="lots")
    with pytest.raises(ValueError, match="leave memory_budget out"):
        HessianSpectrum(memory_budget="1GB", track=True)
