"""Sharpness measures: how much the loss rises when the weights move, one measure a file."""

import lazy_loader as _lazy

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submod_attrs={
        "_asam": ["asam"],
        "_average": ["average_case"],
        "_congruence": ["stretched"],
        "_fisher_rao": ["fisher_rao"],
        "_gradient_norm": ["gradient_norm"],
        "_keskar": ["keskar"],
        "_ladder": ["Ladder"],
        "_logits": ["normalised_logits"],
        "_m_sharpness": ["m_sharpness"],
        "_pac_bayes": ["NoiseTolerance", "pac_bayes"],
        "_radius": ["random_radius"],
        "_relative_flatness": ["RelativeFlatness", "relative_flatness"],
        "_sam": ["sam"],
        "_stretched_curvature": ["TopCurvature", "lambda_max_chc", "trace_chc"],
        "_worst": ["worst_case"],
    },
)

__all__ = [
    "Ladder",
    "NoiseTolerance",
    "RelativeFlatness",
    "TopCurvature",
    "asam",
    "average_case",
    "fisher_rao",
    "gradient_norm",
    "keskar",
    "lambda_max_chc",
    "m_sharpness",
    "normalised_logits",
    "pac_bayes",
    "random_radius",
    "relative_flatness",
    "sam",
    "stretched",
    "trace_chc",
    "worst_case",
]
