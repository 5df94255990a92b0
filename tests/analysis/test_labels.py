"""Labels of measures."""

from __future__ import annotations

import pytest

from landscape.analysis import label_of
from landscape.analysis._labels import base_of, stderr_column


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("average_case", "adaptive average-case sharpness (rise in loss)"),
        ("average_case_plain", "plain average-case sharpness (rise in loss) (not invariant)"),
        ("worst_case_linf[rho_worst_case_linf=0.002]", "adaptive worst-case ℓ∞ sharpness at ρ = 0.002 (rise in loss)"),
        (
            "pac_bayes[drop_pac_bayes=0.1]",
            "1/σ² of the noise that the accuracy stands at a rise of the error of 0.1 (not invariant)",
        ),
        ("bits[tolerance=0.03]", "code length at a loss rise ≤ 0.03 (bits)"),
        ("bits[codebook,tolerance=0.03]", "code length at a loss rise ≤ 0.03, codebook (bits)"),
        ("bits_back[tolerance=0.1]", "bits-back length at a loss rise ≤ 0.1 (bits)"),
        ("lambda_max", "largest Hessian eigenvalue (not invariant)"),
        ("trace", "Hessian trace (not invariant)"),
        ("hessian_spectrum/trace", "Hessian trace (not invariant)"),
        ("trace_stderr", "standard error of Hessian trace (not invariant)"),
        ("n_eff[z=0.01]", "effective dimensionality at z = 0.01 (not invariant)"),
        ("barrier_train_loss[linear,worse_end]", "barrier in training loss [linear, worse_end]"),
        ("layer_trace[layer=net.0]", "Hessian trace of net.0 (not invariant)"),
        ("wall_seconds", "time of the measurement (s)"),
        ("my_measure[depth=3]", "my_measure[depth=3]"),
        ("batch_size", "batch_size"),
        ("a[b][c]", "a[b][c]"),
    ],
)
def test_label(name: str, label: str) -> None:
    assert label_of(name) == label


@pytest.mark.parametrize("name", ["average_case", "worst_case", "bits[tolerance=0.1]"])
def test_invariant_measures_carry_no_mark(name: str) -> None:
    assert "not invariant" not in label_of(name)


def test_where_the_standard_error_is() -> None:
    assert stderr_column("trace") == "trace_stderr"
    assert stderr_column("n_eff[z=0.1]") == "n_eff_stderr[z=0.1]"
    assert base_of("group/n_eff[z=0.1]") == "n_eff"
