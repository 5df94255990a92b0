"""A certificate written to a file decodes to one network, whose errors and bits are those claimed."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from landscape.bounds import countable_bound
from landscape.certificates import certify, decoded, read, train_subspace, verify
from landscape.compression._families import FAMILIES

TRAINING = {
    "subspace": {"dimension": 10},
    "sparse": {"dimension": 12, "taps": 4},
    "grid": {"dimension": None},
}


def similarity(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0))


def check(certificate, case, path) -> nn.Module:
    """Save, read, decode, count by hand, verify; return the decoded network."""
    certificate.save(path)
    claim = read(path)
    assert claim == certificate
    network = decoded(claim, case.architecture)
    x, y = case.examples
    with torch.no_grad():
        wrong = int((network(x).argmax(1) != y).sum())
    assert (claim.wrong, claim.n, claim.classes) == (wrong, len(y), 3)
    assert claim.payload_bits == 8 * len(claim.payload)
    assert claim.bits == claim.payload_bits
    bound = countable_bound(error=wrong / len(y), n=len(y), bits=claim.bits, delta=0.05)
    assert bound <= claim.bound <= bound + 2e-6
    verdict = verify(path, case.architecture, case.batches)
    assert verdict.valid, verdict.reason
    assert (verdict.wrong, verdict.bound) == (wrong, claim.bound)
    return network


def test_a_trained_network(case, tmp_path):
    before = copy.deepcopy(case.trained.state_dict())
    case.trained.train()
    certificate = certify(case.trained, case.batches, architecture=case.architecture)
    network = check(certificate, case, tmp_path / "a.lsc")
    assert case.trained.training
    case.trained.eval()
    assert not certificate.vacuous
    assert certificate.error < 0.3
    for name, tensor in case.trained.state_dict().items():
        assert torch.equal(tensor, before[name])
        if tensor.is_floating_point() and tensor.ndim > 1:  # coded coarsely, but this tensor and no other
            assert similarity(tensor, network.state_dict()[name]) > 0.7
    # Constant buffers are the architecture's, and cost nothing.
    with_all = certify(case.trained, case.batches)
    assert with_all.bits >= certificate.bits
    assert verify(with_all, case.architecture, case.batches).valid


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_of_codes(cases, family, tmp_path):
    case = cases["convolution"]
    certificate = certify(case.trained, case.batches, architecture=case.architecture, family=family)
    check(certificate, case, tmp_path / "a.lsc")
    assert certificate.codec["family"] == family
    assert f"family = {family}" in certificate.statement()


@pytest.mark.parametrize("kind", TRAINING)
def test_a_network_trained_to_take_few_bits(case, kind, tmp_path):
    state = torch.random.get_rng_state()
    code = train_subspace(
        case.architecture, case.batches, epochs=4, batch_size=200, levels=5, progress=False, **TRAINING[kind]
    )
    assert np.abs(code.integers).max() <= 2
    certificate = certify(code, case.batches, architecture=case.architecture)
    check(certificate, case, tmp_path / "a.lsc")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_running_statistics_are_coded_or_the_networks_would_differ(cases):
    case = cases["convolution"]
    certificate = certify(case.trained, case.batches, architecture=case.architecture)
    network = decoded(certificate, case.architecture)
    norm, trained = network.net[2], case.trained.net[2]
    torch.testing.assert_close(norm.running_var, trained.running_var, rtol=0.5, atol=0.3)
    assert not torch.equal(norm.running_mean, torch.zeros(3))
    assert int(norm.num_batches_tracked) == 0  # as constructed: nothing in eval mode depends on it
    code = train_subspace(case.architecture, case.batches, dimension=10, epochs=2, progress=False)
    assert set(code.others) == {"net.2.running_mean", "net.2.running_var"}


def test_frozen_parameters_cost_nothing_where_they_are_as_constructed(perceptron_case):
    def frozen() -> nn.Module:
        network = perceptron_case.architecture()
        network[0].requires_grad_(False)
        return network

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = frozen()
    nn.init.normal_(network[2].weight, generator=torch.Generator().manual_seed(3))
    certificate = certify(network, perceptron_case.batches, architecture=frozen)
    again = decoded(certificate, frozen)
    assert torch.equal(again[0].weight, network[0].weight)
    assert verify(certificate, frozen, perceptron_case.batches).valid
    # Another frozen layer than the constructed one must be in the stream.
    moved = copy.deepcopy(network)
    with torch.no_grad():
        moved[0].weight.mul_(-1)
    other = certify(moved, perceptron_case.batches, architecture=frozen)
    assert similarity(decoded(other, frozen)[0].weight, moved[0].weight) > 0.9
    assert other.codec == certificate.codec


def test_a_lightning_module_answers_through_its_own_step(perceptron_case):
    import pytorch_lightning as pl

    class Lit(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = perceptron_case.architecture()

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1], label_smoothing=0.1)

    module = Lit()
    module.net.load_state_dict(perceptron_case.trained.state_dict())
    mine = certify(module, perceptron_case.batches, architecture=Lit)
    plain = certify(perceptron_case.trained, perceptron_case.batches, architecture=perceptron_case.architecture)
    assert (mine.wrong, mine.bits, mine.payload) == (plain.wrong, plain.bits, plain.payload)
    assert mine.loss == "Lit.training_step"
    assert verify(mine, Lit, perceptron_case.batches).valid


def test_training_is_the_same_again_and_shorter_with_a_weight_on_length(perceptron_case):
    settings = {"dimension": None, "epochs": 15, "progress": False}
    case = perceptron_case
    one, same, short = (
        train_subspace(case.architecture, case.batches, length_weight=weight, **settings) for weight in (0.0, 0.0, 3.0)
    )
    assert np.array_equal(one.integers, same.integers)
    assert one.step == same.step
    bits = [certify(code, case.batches, architecture=case.architecture).bits for code in (one, short)]
    assert bits[1] < bits[0]
    assert all(math.isfinite(length) for length in bits)


def test_a_large_network_hears_few_coordinates_by_default():
    batches = [(torch.randn(20, 1000, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 7)]

    def wide() -> nn.Module:
        return nn.Linear(1000, 700)

    code = train_subspace(wide, batches, dimension=100, epochs=1, progress=False)
    assert (code.taps, code.dimension) == (8, 100)
    assert verify(certify(code, batches, architecture=wide), wide, batches)
