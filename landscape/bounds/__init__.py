"""Generalisation bounds that follow from a short description: of risks on new examples, with stated confidence."""

import lazy_loader as _lazy

__getattr__, __dir__, _lazy_names = _lazy.attach(
    __name__,
    submod_attrs={
        "_bounded": ["bounded_loss_bound"],
        "_charges": ["charge_bits", "prefix_free_bits"],
        "_countable": ["countable_bound"],
        "_gaussian": ["gaussian_kl"],
        "_kl": ["binary_kl", "kl_inverse"],
        "_language": ["bits_per_token_bound"],
        "_monte_carlo": ["sampled_risk_bound"],
        "_pac_bayes": ["pac_bayes_bound"],
        "_smoothing": ["smoothed_bits", "smoothed_range"],
        "_split": ["PriorSplit", "prior_split"],
    },
)

__all__ = [
    "PriorSplit",
    "binary_kl",
    "bits_per_token_bound",
    "bounded_loss_bound",
    "charge_bits",
    "countable_bound",
    "gaussian_kl",
    "kl_inverse",
    "pac_bayes_bound",
    "prefix_free_bits",
    "prior_split",
    "sampled_risk_bound",
    "smoothed_bits",
    "smoothed_range",
]
