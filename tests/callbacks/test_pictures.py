"""The analysis finds in the callbacks' files what it needs: settings, sizes, numbers of examples, ladders."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from landscape_test_trainings import fit, run_of
from matplotlib import pyplot as plt

from landscape.analysis import (
    plot_flatness_compressibility,
    plot_learning_coefficient,
    plot_rate_distortion,
)
from landscape.analysis._learning_coefficient import half_dimension
from landscape.callbacks import Compressibility, HessianSpectrum, LearningCoefficient

mpl.use("Agg")


def test_codes_bounds_and_chains_of_a_training(tmp_path):
    callbacks = [
        LearningCoefficient(chains=2, draws=20, gamma=1.0, on_error="raise"),
        HessianSpectrum(k=2, on_error="raise"),
        Compressibility(tolerances=(0.03, 0.3), on_error="raise"),
    ]
    run = run_of(fit(tmp_path, *callbacks))
    spectrum, codes = run.dataset("hessian_spectrum"), run.dataset("compressibility")
    for z in spectrum["z"].values:
        steps, values, errors = half_dimension(run, float(z))
        assert steps.tolist() == spectrum["step"].values.tolist()
        np.testing.assert_allclose(2 * values, spectrum["n_eff"].sel(z=z), rtol=1e-12)
        both = np.hypot(spectrum["n_eff_stderr"].sel(z=z), spectrum["n_eff_stderr_sample"].sel(z=z))
        np.testing.assert_allclose(2 * errors, both, rtol=1e-12)
    ax = plot_learning_coefficient(run)
    nbeta = float(run.dataset("learning_coefficient")["nbeta"][-1])
    assert f"½ N_eff at z = γ/nβ = {1 / nbeta:.3g}" in ax.get_title(loc="left").replace("\n", " ")
    ax = plot_rate_distortion(run)
    shown = np.concatenate([line.get_ydata() for line in ax.lines if line.get_linestyle() == "None"])
    assert shown == pytest.approx(codes["bits"].values[-1])
    assert ax.child_axes[0].get_ylabel().startswith("bits per parameter")
    ax = plot_flatness_compressibility(run, x="trace", bound={"error": 0.1})
    count = codes.attrs["measured"]["n_examples"]
    assert f"n = {count}, δ = 0.05" in ax.get_title(loc="left").replace("\n", " ").replace("\u00a0", " ")
    plt.close("all")
