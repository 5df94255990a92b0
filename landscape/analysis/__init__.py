"""Reading runs as pictures: plots, rank correlations and summaries of run files. Loads neither torch nor Lightning."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submod_attrs={
        "_connectivity": ["plot_connectivity"],
        "_correlation": ["Correlation", "kendall"],
        "_flatness": ["plot_flatness_compressibility"],
        "_labels": ["label_of"],
        "_report": ["write_report"],
        "_sharpness": ["plot_sharpness"],
        "_spectrum": ["plot_spectrum"],
        "_summary": ["summarize"],
        "_surface": ["plot_surface"],
        "_surface_html": ["write_surface_html"],
        "_swa": ["plot_swa"],
    },
)
