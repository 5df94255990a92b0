"""Importing the analysis is cheap."""

from __future__ import annotations

import subprocess
import sys

import pytest

import landscape.analysis


@pytest.mark.parametrize(
    "code",
    [
        "import landscape.analysis",
        "import landscape.analysis as a; a.label_of('trace'); a.kendall([1, 2, 3], [1, 2, 3]); a.summarize",
        "import landscape.analysis as a; a.granulated_kendall, a.sign_error, a.rank_correlations",
    ],
)
def test_neither_torch_nor_matplotlib_is_loaded(code: str) -> None:
    heavy = "{'torch', 'pytorch_lightning', 'lightning', 'matplotlib'}"
    check = f"import sys; {code}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_plotting_loads_no_torch() -> None:
    check = "import sys, landscape.analysis as a; [getattr(a, n) for n in a.__all__]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_public_names() -> None:
    assert sorted(landscape.analysis.__all__) == [
        "Correlation",
        "GranulatedKendall",
        "SignError",
        "granulated_kendall",
        "kendall",
        "label_of",
        "plot_bound_decomposition",
        "plot_connectivity",
        "plot_evidence",
        "plot_flatness_compressibility",
        "plot_learning_coefficient",
        "plot_monitor",
        "plot_rank_correlations",
        "plot_rate_distortion",
        "plot_sharpness",
        "plot_spectrum",
        "plot_surface",
        "plot_swa",
        "rank_correlations",
        "sign_error",
        "summarize",
        "write_report",
        "write_surface_html",
    ]
