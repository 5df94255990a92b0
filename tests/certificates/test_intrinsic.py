"""The smallest subspace that does nearly as well as all weights, from certificates of each."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from landscape import MeasurementError
from landscape.certificates import certify, intrinsic_dimension, train_subspace

TRAINING = {"epochs": 8, "batch_size": 500, "progress": False}


def test_each_dimension_is_what_it_is_certified_to_be(perceptron_case):
    make, batches = perceptron_case.architecture, perceptron_case.batches
    found = intrinsic_dimension(make, batches, (40, 5), share=0.8, baseline_error=0.3, seed=3, **TRAINING)
    claims = []
    for dimension in (5, 40):
        code = train_subspace(make, batches, dimension=dimension, seed=3, **TRAINING)
        claims.append(certify(code, batches, architecture=make))
    assert found.dimensions.tolist() == [5, 40]
    assert found.error.tolist() == [claim.error for claim in claims]
    assert found.bits.tolist() == [claim.bits for claim in claims]
    assert found.bound.tolist() == [claim.bound for claim in claims]
    least = min(claims, key=lambda claim: claim.bound)
    assert certify(code, batches, architecture=make, choices={"dimension": 2}).bound >= found.best_bound > least.bound
    enough = [claim.error <= 1 - 0.8 * 0.7 for claim in claims]
    assert found.dimension == next((d for d, yes in zip((5, 40), enough, strict=True) if yes), None)


def test_the_share_decides_and_all_weights_are_the_baseline(perceptron_case):
    make, batches = perceptron_case.architecture, perceptron_case.batches
    found = intrinsic_dimension(make, batches, (2, 60), share=1e-9, **TRAINING)
    whole = train_subspace(make, batches, dimension=None, **TRAINING)
    assert found.baseline_error == certify(whole, batches, architecture=make).error
    assert found.dimension == 2
    assert intrinsic_dimension(make, batches, (2,), share=1.0, baseline_error=0.0, **TRAINING).dimension is None


def test_a_rule_of_one_direction_needs_few_dimensions():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 30, generator=generator)
    network, batches = (lambda: nn.Linear(30, 2)), [(x, (x[:, 0] > 0).long())]
    found = intrinsic_dimension(network, batches, (1, 5, 20, 62), start="zero", epochs=20, progress=False)
    # In a random line of 62 dimensions the rule has a share of 1/62, in all of them it is itself.
    assert found.error[0] > 0.4 > 0.1 > found.error[-1]
    assert found.dimension in (20, 62)
    assert found.bits[0] < found.bits[-1]


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"dimensions": ()}, ValueError, "dimensions is empty"),
        ({"share": 1.5}, ValueError, "share is 1.5"),
        ({"baseline_error": -0.1}, ValueError, "baseline_error is -0.1"),
        ({"dimensions": (0,)}, MeasurementError, "dimension"),
        ({"dimensions": (10**6,)}, MeasurementError, "a subspace of"),
    ],
)
def test_what_is_not_possible_is_told(perceptron_case, arguments, error, said):
    with pytest.raises(error, match=said):
        intrinsic_dimension(perceptron_case.architecture, perceptron_case.batches, **arguments, **TRAINING)
