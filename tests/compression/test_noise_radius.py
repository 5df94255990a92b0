"""The noise that weights stand, in closed form and under rescaling, and the length that it leaves."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn

from landscape import MeasurementError, Objective
from landscape._layout import ParameterLayout
from landscape.bounds import gaussian_kl
from landscape.compression import NoiseRadius, noise_radius
from landscape.compression._bits_back import bits_back
from landscape.compression._entropy import kt_bits
from landscape.compression._radii import PER, radii

TOLERANCES = (0.003, 0.03, 0.3)


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found = {"a": torch.randn(5, 4, generator=generator), "b": 0.1 * torch.randn(5, generator=generator)}
    found["c"] = 7 * torch.randn(3, 2, 2, generator=generator)
    return {name: tensor.double() for name, tensor in found.items()}


def matrix(size: int, seed: int = 1) -> torch.Tensor:
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T / size


def test_radii_by_hand():
    layout = ParameterLayout(("w", "b", "s", "none"), ((2, 2), (2,), (), (0, 3)))
    weights = torch.tensor([3.0, -4.0, 0.0, 0.0, 6.0, -8.0, -2.0])
    per = {name: radii(weights, layout, name).tolist() for name in PER}
    assert per["weight"] == [3, 4, 0, 0, 6, 8, 2]
    assert per["filter"] == pytest.approx([math.sqrt(12.5)] * 2 + [0, 0] + [math.sqrt(50)] * 2 + [2], rel=1e-6)
    assert per["tensor"] == pytest.approx([2.5] * 4 + [math.sqrt(50)] * 2 + [2], rel=1e-6)
    assert radii(torch.tensor([1e30, 1e30]), ParameterLayout(("w",), ((2,),)), "tensor").tolist() == pytest.approx(
        [1e30] * 2
    )


@pytest.mark.parametrize("per", PER)
def test_a_quadratic_in_closed_form(quadratic, per):
    # E ΔL = ½ σ² Tr(CHC).
    center, curvature = tensors(), matrix(37)
    objective = quadratic(center, curvature)
    c = radii(objective.vector(), objective.layout, per)
    exact = np.sqrt(2 * np.array(TOLERANCES) / float((c * curvature.diagonal() * c).sum()))
    found = noise_radius(objective, TOLERANCES, per, draws=400, tol=0.02, seed=3)
    assert np.all(found.stderr < 0.05 * exact)
    assert np.all(np.abs(found.sigma - exact) < 3 * found.stderr)
    assert (found.loss, found.n, found.seed, found.per, found.n_parameters) == (0.7, 200, 3, per, 37)
    # The same draws at every tolerance: the law of the square is exact for them.
    assert found.sigma / found.sigma[0] == pytest.approx(np.sqrt(np.array(TOLERANCES) / TOLERANCES[0]), rel=1e-4)


def test_the_gradient_cancels_between_the_two_signs(quadratic):
    center, curvature = tensors(), matrix(37)
    objective = quadratic(center, curvature)
    away = objective.at(objective.vector() + 1e-3)
    one, other = (noise_radius(each, (0.01,), "tensor").sigma for each in (objective, away))
    assert one == pytest.approx(other, rel=5e-3)  # c is another one by a thousandth


def test_the_standard_error_is_the_spread_over_seeds(quadratic):
    objective = quadratic(tensors(), matrix(37))
    runs = [noise_radius(objective, (0.03,), draws=20, seed=seed) for seed in range(30)]
    spread = np.std([run.sigma[0] for run in runs], ddof=1)
    assert 0.7 < np.mean([run.stderr[0] for run in runs]) / spread < 1.4


def test_weights_of_zero_stay(quadratic):
    center = tensors()
    center["a"][1:4] = 0
    center["c"][0, 1, 1] = 0
    curvature = torch.ones(37, dtype=torch.float64)
    curvature[torch.cat([tensor.reshape(-1) for tensor in center.values()]) == 0] = math.inf  # never to be touched

    def loss(w: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        moved = (w - flat).square()
        return torch.where(moved > 0, curvature * moved, 0.0).sum()

    objective = quadratic(center, torch.ones(37))
    flat = objective.vector()
    pruned = Objective(objective.module, loss, objective.batches, dtype=torch.float64)
    found = noise_radius(pruned, (0.1,), "weight")
    assert 0 < found.sigma[0] < math.inf
    assert np.isfinite(found.bits).all()
    # A whole filter of zeros stays under noise by the filter; a single zero in another filter does not.
    assert noise_radius(pruned, (0.1,), "filter").sigma[0] == 0


def network(cases, seed: int = 0) -> tuple[nn.Sequential, list[tuple[torch.Tensor, torch.Tensor]]]:
    x, y = cases.data(40)
    model = cases.trained(cases.mlp(nn.ReLU, seed=seed), nn.functional.cross_entropy, [(x, y)], steps=100)
    return model, [(x.double(), y)]


@pytest.mark.parametrize("per", PER)
def test_layer_rescaling_changes_nothing(cases, per):
    model, batches = network(cases)
    rescaled = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in rescaled[0].parameters():
            parameter *= 8.0
        rescaled[2].weight /= 8.0
    one, other = (noise_radius(Objective(m, nn.functional.cross_entropy, batches), per=per) for m in (model, rescaled))
    assert other.sigma == pytest.approx(one.sigma, rel=1e-9)
    assert other.stderr == pytest.approx(one.stderr, rel=1e-6)
    assert other.bits == pytest.approx(one.bits, rel=1e-9)


def test_neuron_rescaling_changes_nothing_for_noise_by_the_weight(cases):
    model, batches = network(cases)
    rescaled = copy.deepcopy(model)
    with torch.no_grad():
        factors = torch.logspace(-1, 1, 8, dtype=torch.float64)
        rescaled[0].weight *= factors[:, None]
        rescaled[0].bias *= factors
        rescaled[2].weight /= factors
    one, other = (
        noise_radius(Objective(m, nn.functional.cross_entropy, batches), per="weight") for m in (model, rescaled)
    )
    assert other.sigma == pytest.approx(one.sigma, rel=1e-9)


def test_a_filter_before_a_normalisation_may_have_any_size():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(6, eps=0.0, affine=False)
    norm.running_mean, norm.running_var = torch.randn(6), 0.5 + torch.rand(6)
    net = nn.Sequential(nn.Linear(4, 6, bias=False), norm, nn.Tanh(), nn.Linear(6, 3)).double().eval()
    x, y = torch.randn(50, 4, dtype=torch.float64), torch.randint(0, 3, (50,))
    rescaled = copy.deepcopy(net)
    factors = torch.logspace(-1, 1, 6, dtype=torch.float64)
    with torch.no_grad():
        rescaled[0].weight *= factors[:, None]
        rescaled[1].running_mean *= factors
        rescaled[1].running_var *= factors**2
    one, other = (
        noise_radius(Objective(m, nn.functional.cross_entropy, [(x, y)]), per="filter") for m in (net, rescaled)
    )
    assert other.sigma == pytest.approx(one.sigma, rel=1e-9)


# ---------------------------------------------------------------------- bits back


def test_the_length_is_the_divergence_from_the_prior():
    layout = ParameterLayout(("a", "b"), ((4, 3), (5,)))
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(17, generator=generator, dtype=torch.float64)
    deviations = 0.1 + torch.rand(17, generator=generator, dtype=torch.float64)
    for length, part in zip(bits_back(weights, deviations, layout), layout.slices(), strict=True):
        mean, std = weights[part].numpy(), deviations[part].numpy()

        def divergence(width, mean=mean, std=std):
            return gaussian_kl(mean, std, 0.0, width) / math.log(2)

        width = math.sqrt((mean**2 + std**2).mean())
        assert length == pytest.approx(2 + 64 + divergence(width), rel=1e-12)
        assert divergence(width) < min(divergence(0.99 * width), divergence(1.01 * width))  # the best prior of its kind


def test_one_weight_against_an_integral():
    mean, std = 0.8, 0.3
    layout = ParameterLayout(("w",), ((1,),))
    (length,) = bits_back(torch.tensor([mean]).double(), torch.tensor([std]).double(), layout)
    posterior, prior = stats.norm(mean, std), stats.norm(0, math.hypot(mean, std))
    nats, _ = integrate.quad(lambda x: posterior.pdf(x) * (posterior.logpdf(x) - prior.logpdf(x)), -3, 4, epsabs=1e-12)
    assert length == pytest.approx(2 + 64 + nats / math.log(2), rel=1e-9)


def test_zeros_are_coded_by_their_places():
    layout = ParameterLayout(("mixed", "free", "zero", "none"), ((6,), (2,), (4,), (0,)))
    weights = torch.tensor([0, 1.0, 0, 0, 2.0, 0, 3.0, 4.0, 0, 0, 0, 0])
    lengths = bits_back(weights, 0.1 * weights, layout)
    kept = ParameterLayout(("mixed",), ((2,),))
    (alone,) = bits_back(torch.tensor([1.0, 2.0]), torch.tensor([0.1, 0.2]), kept)
    assert lengths[0] == pytest.approx(alone - 1 + kt_bits([2, 4]), rel=1e-6)
    assert lengths[1] > 2 + 32
    assert lengths[2:] == [2.0, 2.0]


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_lengths_of_extreme_weights(size):
    layout = ParameterLayout(("w",), ((3,),))
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    plain, scaled = (bits_back(factor * weights, 0.1 * factor * weights.abs(), layout) for factor in (1.0, size))
    assert scaled == pytest.approx(plain, rel=1e-9)


def test_the_curve_of_lengths(quadratic):
    objective = quadratic(tensors(), matrix(37))
    found = noise_radius(objective, TOLERANCES, "tensor")
    assert found.names.tolist() == ["a", "b", "c"]
    assert found.bits == pytest.approx(found.tensor_bits.sum(axis=1))
    assert np.all(np.diff(found.bits) < 0)
    c = radii(objective.vector(), objective.layout, "tensor")
    for row, sigma in zip(found.tensor_bits, found.sigma, strict=True):
        assert row.tolist() == bits_back(objective.vector(), sigma * c, objective.layout)
    plain = found.to_dict()
    assert plain["sigma"].shape == (3,)
    assert isinstance(found, NoiseRadius)


# ---------------------------------------------------------------------- where there is no radius


def test_a_loss_that_never_rises_and_one_that_always_does(quadratic):
    flat = noise_radius(quadratic(tensors(), torch.zeros(37)), (0.1,))
    assert flat.sigma.tolist() == [math.inf]
    assert np.isnan([*flat.stderr, *flat.bits, *flat.tensor_bits[0]]).all()
    zeros = noise_radius(quadratic({"w": torch.zeros(4)}, torch.ones(4)), (0.1,))
    assert zeros.sigma.tolist() == [math.inf]
    assert zeros.n_evaluations == 1


def test_a_loss_that_is_no_number_far_away(quadratic):
    objective = quadratic({"w": torch.ones(50)}, torch.ones(50))
    broken = Objective(
        objective.module,
        lambda w, _: torch.where((w - 1).abs().max() > 0.01, math.nan, 0 * w.sum()),
        objective.batches,
        dtype=torch.float64,
    )
    found = noise_radius(broken, (0.1,), "tensor")
    assert 0 < found.sigma[0] < 0.01
    assert math.isnan(found.stderr[0])
    assert math.isfinite(found.bits[0])


def test_arguments(quadratic):
    objective = quadratic(tensors(), matrix(37))
    with pytest.raises(ValueError, match="per is 'layer'; it must be one of weight, filter, tensor"):
        noise_radius(objective, per="layer")
    with pytest.raises(ValueError, match="draws is 3; at least 4 perturbations"):
        noise_radius(objective, draws=3)
    with pytest.raises(ValueError, match="tol is 1; it must lie between 0 and 1"):
        noise_radius(objective, tol=1)
    with pytest.raises(ValueError, match="expected a sequence of at least one positive finite number"):
        noise_radius(objective, ())
    bad = Objective(objective.module, lambda w, _: w.sum() * math.nan, objective.batches, dtype=torch.float64)
    with pytest.raises(MeasurementError, match="nan"):
        noise_radius(bad)


def test_the_error_over_examples_is_what_reweighting_the_batches_does(cases):
    sizes = [12, 9, 19]
    x, y = cases.data(sum(sizes))
    model, batches = cases.mlp().double(), list(zip(x.split(sizes), y.split(sizes), strict=True))

    def measure(chosen: int, share: float) -> tuple[NoiseRadius, Objective]:
        def weight(batch):
            return len(batch[1]) * (1 + share * (len(batch[1]) == sizes[chosen]))

        objective = Objective(model, nn.CrossEntropyLoss(), batches, batch_weight=weight)
        return noise_radius(objective, (0.1,), draws=4, tol=1e-7), objective

    moves = [(measure(b, 1e-3)[0].sigma[0] - measure(b, -1e-3)[0].sigma[0]) / 2e-3 for b in range(3)]
    found, objective = measure(0, 0.0)
    assert found.stderr_sample[0] == pytest.approx(float(objective.clusters.stderr(np.array(moves))), rel=1e-3)
    assert np.isnan(noise_radius(Objective(model, nn.CrossEntropyLoss(), [(x, y)]), (0.1,)).stderr_sample).all()
