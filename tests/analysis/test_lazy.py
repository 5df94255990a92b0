"""Importing the analysis is cheap."""

from __future__ import annotations

import subprocess
import sys

import landscape.analysis

LIGHT = [
    "import landscape.analysis as a",
    "a.label_of('trace'); a.kendall([1, 2, 3], [1, 2, 3]); a.summarize",
    "a.granulated_kendall, a.sign_error, a.rank_correlations",
]


def test_numbers_load_neither_torch_nor_matplotlib_and_plots_no_torch() -> None:
    """One fresh interpreter takes the statements in order and says what is loaded after each."""
    heavy = "{'torch', 'pytorch_lightning', 'lightning', 'matplotlib'}"
    statements = [*LIGHT, "[getattr(a, n) for n in a.__all__]"]
    check = "\n".join(["import sys", *(f"{code}\nprint(sorted({heavy} & set(sys.modules)))" for code in statements)])
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    *numbers, plots = done.stdout.splitlines()
    assert numbers == ["[]"] * len(LIGHT)
    assert plots == "['matplotlib']"


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
