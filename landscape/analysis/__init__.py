"""Reading runs as pictures: plots, rank correlations and summaries of run files. Loads neither torch nor Lightning."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submod_attrs={
        "_connectivity": ["plot_connectivity"],
        "_correlation": ["Correlation", "kendall"],
        "_decomposition": ["plot_bound_decomposition"],
        "_evidence": ["plot_evidence"],
        "_flatness": ["plot_flatness_compressibility"],
        "_granulated": ["GranulatedKendall", "granulated_kendall"],
        "_labels": ["label_of"],
        "_report": ["write_report"],
        "_learning_coefficient": ["plot_learning_coefficient"],
        "_monitor": ["plot_monitor"],
        "_ranking": ["rank_correlations"],
        "_ranking_plot": ["plot_rank_correlations"],
        "_rate_distortion": ["plot_rate_distortion"],
        "_sharpness": ["plot_sharpness"],
        "_sign_error": ["SignError", "sign_error"],
        "_spectrum": ["plot_spectrum"],
        "_summary": ["summarize"],
        "_surface": ["plot_surface"],
        "_surface_html": ["write_surface_html"],
        "_swa": ["plot_swa"],
    },
)
