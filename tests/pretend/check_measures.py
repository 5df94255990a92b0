"""Every public measure gives on another device the numbers that it gives on the CPU."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from landscape import (
    MeasurementError,
    Objective,
    averaging,
    certificates,
    compression,
    connectivity,
    curvature,
    description,
    sharpness,
    surface,
)
from landscape import volume as volumes
from landscape.curvature import hessian

PACKAGES = [
    "averaging",
    "certificates",
    "compression",
    "connectivity",
    "curvature",
    "description",
    "sharpness",
    "surface",
    "volume",
]
LOSS = nn.CrossEntropyLoss()
FEW = {"tolerances": (0.03, 0.3)}


def _vectors(at: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    weights = at.objective.vector()
    return weights, weights * 0.5, weights.roll(1)


def _spectrum(at: Any) -> Any:
    return curvature.spectrum(hessian(at.objective), k=2, probes=2, steps=6, max_matvecs=20)


def _density(at: Any) -> Any:
    return curvature.spectral_density(hessian(at.objective), probes=2, steps=5)


def _track(at: Any) -> Any:
    operator, gradient = hessian(at.objective), at.objective.gradient()
    first = curvature.track(operator, k=3, gradient=gradient)
    return first, curvature.track(operator, first, k=3, gradient=gradient)


def _known(at: Any) -> Any:
    operator = hessian(at.objective)
    pairs = curvature.top_eigenpairs(operator, k=3)
    return (
        curvature.spectral_density(operator, probes=2, steps=5, known=[pairs]),
        curvature.trace(operator, "hutch++", known=[pairs], max_matvecs=12),
    )


def _curve(at: Any, kind: str = "bezier") -> Any:
    return connectivity.connect(at.model, at.other, LOSS, at.batches, kind, steps=3, progress=False)


def _line(at: Any) -> tuple[Any, Any]:
    line = connectivity.linear_path(at.model, at.other, LOSS, at.batches)
    return line, connectivity.profile(line, at.objective, t=[0.0, 0.5, 1.0], refine=1)


def _simplexes(at: Any) -> Any:
    found = connectivity.fit_simplexes(at.objective, _vectors(at)[:2], steps=3, progress=False)
    return found.connectors, found.volume, found.loss(samples=3)


def _plane(at: Any) -> Any:
    plane = connectivity.plane_through(*_vectors(at))
    return plane, connectivity.curve_on_plane(_curve(at), plane, t=[0.0, 0.3, 1.0])


def _swag(at: Any) -> Any:
    posterior = averaging.swag(at.run, rank=4)
    many = averaging.multiswag([at.run, at.run], rank=4)
    samples = list(averaging.samples_of(posterior, 2)) + list(averaging.samples_of(many, 2, objective=at.objective))
    return samples, averaging.bayesian_average(at.objective, samples)


def _running(at: Any) -> Any:
    kinds = [averaging.RunningMean(), averaging.RunningMoments(), averaging.OnlinePCA(2)]
    for vector in _vectors(at) * 2:
        for each in kinds:
            each.update(vector)
    mean, moments, components = kinds
    return mean.value, moments.mean, moments.variance(), components.mean, components.variance


def _encoded(at: Any) -> Any:
    code = compression.encode(at.model.state_dict(), 0.05)
    return code, compression.decode(code)


def _bits(at: Any) -> Any:
    found = compression.bits(at.objective, **FEW)
    return found, compression.quantisation_law(at.objective, found, max_matvecs=20)


def _chain(at: Any, method: str = "sgld", **options: Any) -> Any:
    return volumes.learning_coefficient(at.small, chains=2, draws=12, burn_in=5, method=method, **options)


def _prequential(at: Any) -> Any:
    x, y = at.batches[0]

    def make() -> nn.Module:
        return nn.Linear(4, 3, dtype=torch.float64).to(at.device)

    training = description.AdamTraining(learning_rate=0.1, steps=5)
    orders = description.prequential_orders(make, (x, y), training, seeds=(0, 1), blocks=3, classes=None)
    return description.prequential(make, (x, y), training, blocks=3, progress=False), orders


def _along_a_step(at: Any) -> Any:
    update = -0.1 * at.small.gradient()
    return (
        sharpness.critical_sharpness(at.small, update, 0.1),
        sharpness.directional_sharpness(at.small, update, 0.1),
        sharpness.gradient_noise_scale(at.small),
    )


def _preconditioned(at: Any) -> Any:
    network = copy.deepcopy(at.small.module)
    objective = Objective(network, LOSS, at.batches)
    optimizer = torch.optim.Adam(network.parameters())
    LOSS(network(at.batches[0][0]), at.batches[0][1]).backward()
    optimizer.step()
    return sharpness.preconditioner(objective, optimizer), sharpness.preconditioned_sharpness(objective, optimizer)


def _architecture() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double()


def _certificate(at: Any) -> Any:
    network = _architecture().to(at.device)
    found = certificates.certify(network, at.batches, architecture=_architecture, loss_fn=LOSS, progress=False)
    decoded = certificates.decoded(found, _architecture)
    return found, decoded.state_dict(), certificates.verify(found, _architecture, at.batches, loss_fn=LOSS)


def _subspace(at: Any) -> Any:
    code = certificates.train_subspace(
        _architecture, at.batches, dimension=4, epochs=2, loss_fn=LOSS, progress=False, batch_size=None
    )
    return certificates.certify(code, at.batches, architecture=_architecture, loss_fn=LOSS, progress=False)


def _intrinsic(at: Any) -> Any:
    return certificates.intrinsic_dimension(
        _architecture, at.batches, dimensions=(2, 4), epochs=2, loss_fn=LOSS, progress=False, batch_size=None
    )


def _surface(at: Any) -> Any:
    directions = surface.random_directions(at.objective, count=2)
    drawn = surface.loss_surface(at.objective, directions, points=3, progress=False)
    weights = at.objective.vector()
    flat = surface.normalize(directions.vectors, weights, at.objective.layout, "layer")
    return directions, drawn, flat, surface.project([weights * 1.1], weights, directions)


def _trajectory(at: Any) -> Any:
    directions = surface.trajectory_directions(at.run)
    center = at.objective.vector()
    return directions, surface.project_run(at.run, center, directions, at.objective)


# What is called, by the names of the public functions that it covers.
MEASURES: dict[str, Callable[[Any], Any]] = {
    "averaging.swa": lambda at: averaging.swa(at.run, objective=at.objective),
    "averaging.ema averaging.lawa": lambda at: (
        averaging.ema(at.run, 0.5, objective=at.objective),
        averaging.lawa(at.run, 3, objective=at.objective),
    ),
    "averaging.swag averaging.multiswag averaging.samples_of averaging.bayesian_average": _swag,
    "averaging.RunningMean averaging.RunningMoments averaging.OnlinePCA": _running,
    "averaging.recompute_batchnorm": lambda at: averaging.recompute_batchnorm(at.images),
    "certificates.certify certificates.decoded certificates.verify": _certificate,
    "certificates.train_subspace": _subspace,
    "certificates.intrinsic_dimension": _intrinsic,
    "compression.encode compression.decode": _encoded,
    "compression.bits compression.quantisation_law": _bits,
    "compression.noise_radius": lambda at: compression.noise_radius(at.objective, draws=4, **FEW),
    "connectivity.connect connectivity.fit_curve": _curve,
    "connectivity.linear_path connectivity.profile": _line,
    "connectivity.barrier connectivity.barriers": lambda at: (
        connectivity.barrier(_line(at)[1]),
        connectivity.barriers(_line(at)[1]),
    ),
    "connectivity.path_integral": lambda at: connectivity.path_integral(*_line(at)),
    "connectivity.plane_through connectivity.curve_on_plane": _plane,
    "connectivity.fit_simplexes": _simplexes,
    "connectivity.align": lambda at: (
        connectivity.align(at.model, at.other),
        connectivity.align(at.model, at.other, "activations", at.batches),
    ),
    "connectivity.trace_permutations": lambda at: str(connectivity.trace_permutations(at.model, at.batches)),
    "connectivity.repair": lambda at: connectivity.repair(at.conv, at.conv, LOSS, at.images.batches),
    "curvature.hessian": lambda at: hessian(at.small).dense(),
    "curvature.hessian rebuilt": lambda at: hessian(at.images, strategy="rebuilt") @ at.images.vector(),
    "curvature.hessian differences": lambda at: hessian(at.objective, strategy="differences") @ at.objective.vector(),
    "curvature.ggn": lambda at: curvature.ggn(at.images) @ at.images.vector(),
    "curvature.fisher": lambda at: [
        curvature.fisher(at.objective, kind) @ at.objective.vector() for kind in ("exact", "mc", "empirical")
    ],
    "curvature.top_eigenpairs": lambda at: curvature.top_eigenpairs(hessian(at.objective), k=3),
    "curvature.top_eigenpairs lanczos": lambda at: curvature.top_eigenpairs(
        hessian(at.objective), k=2, method="lanczos", which="BE", memory="low"
    ),
    "curvature.spectrum": _spectrum,
    "curvature.spectral_density": _density,
    "curvature.spectral_density known": _known,
    "curvature.trace": lambda at: [
        curvature.trace(hessian(at.objective), method, max_matvecs=12) for method in ("xtrace", "hutch++", "hutchinson")
    ],
    "curvature.diagonal": lambda at: [
        curvature.diagonal(hessian(at.objective), method, max_matvecs=12) for method in ("xdiag", "bekas")
    ],
    "curvature.track": _track,
    "curvature.layer_curvature": lambda at: curvature.layer_curvature(hessian(at.small).layers(), max_matvecs=12),
    "curvature.operator_gap": lambda at: curvature.operator_gap(
        hessian(at.objective), curvature.ggn(at.objective), probes=4
    ),
    "description.prequential description.prequential_orders description.AdamTraining": _prequential,
    "description.two_part": lambda at: description.two_part(at.objective, **FEW),
    "sharpness.critical_sharpness sharpness.directional_sharpness sharpness.gradient_noise_scale": _along_a_step,
    "sharpness.preconditioner sharpness.preconditioned_sharpness": _preconditioned,
    "sharpness.asam": lambda at: sharpness.asam(at.objective, [0.1, 0.5], group=20),
    "sharpness.average_case": lambda at: sharpness.average_case(at.objective, draws=4),
    "sharpness.average_case linf": lambda at: sharpness.average_case(at.objective, draws=4, norm="linf"),
    "sharpness.fisher_rao": lambda at: sharpness.fisher_rao(at.objective),
    "sharpness.gradient_norm": lambda at: sharpness.gradient_norm(at.objective, adaptive=True),
    "sharpness.keskar": lambda at: sharpness.keskar(at.objective, iterations=3),
    "sharpness.keskar subspace": lambda at: sharpness.keskar(at.objective, subspace=4, draws=2, iterations=3),
    "sharpness.lambda_max_chc": lambda at: sharpness.lambda_max_chc(at.small),
    "sharpness.m_sharpness": lambda at: sharpness.m_sharpness(at.objective, m=20),
    "sharpness.normalised_logits": lambda at: sharpness.normalised_logits(at.objective).loss(),
    "sharpness.pac_bayes": lambda at: sharpness.pac_bayes(at.objective, draws=4, tol=0.2),
    "sharpness.random_radius": lambda at: sharpness.random_radius(at.objective, draws=2, tol=0.1),
    "sharpness.relative_flatness": lambda at: sharpness.relative_flatness(at.objective, layer="4"),
    "sharpness.sam": lambda at: sharpness.sam(at.objective, [0.05, 0.1]),
    "sharpness.stretched": lambda at: (
        sharpness.stretched(hessian(at.objective), at.objective.vector()) @ at.objective.vector()
    ),
    "sharpness.trace_chc": lambda at: sharpness.trace_chc(at.objective, max_matvecs=12),
    "sharpness.worst_case": lambda at: sharpness.worst_case(at.objective, steps=4),
    "sharpness.worst_case linf": lambda at: sharpness.worst_case(at.objective, steps=4, norm="linf", group=20),
    "surface.hessian_directions": lambda at: surface.hessian_directions(at.small, normalization="filter"),
    "surface.plane_directions": lambda at: surface.loss_surface(
        at.objective, surface.plane_directions(*_vectors(at)), points=3, batchnorm="recompute", progress=False
    ),
    "surface.given_directions": lambda at: surface.given_directions(_vectors(at)[1:], at.objective.vector()),
    "surface.loss_surface surface.random_directions surface.normalize surface.project": _surface,
    "surface.trajectory_directions surface.project_run": _trajectory,
    "volume.basin_volume": lambda at: [
        volumes.basin_volume(at.small, rays=2, preconditioner=how, tol=0.1) for how in ("hessian", "diagonal")
    ],
    "volume.coefficient_grid": lambda at: volumes.coefficient_grid(
        at.small, [100.0], [5.0], chains=2, draws=8, burn_in=4
    ),
    "volume.free_energy": lambda at: volumes.free_energy(at.small, chains=1, draws=8, burn_in=4, points=2),
    "volume.laplace_evidence": lambda at: [
        volumes.laplace_evidence(at.small, [0.1, 1.0], structure) for structure in ("full", "diagonal")
    ],
    "volume.learning_coefficient": _chain,
    "volume.learning_coefficient rmsprop": lambda at: _chain(at, "rmsprop", parameters="weight"),
    "volume.learning_coefficient mala": lambda at: _chain(at, "mala", step_size=0.001),
}
# Public names that compute nothing on a device: results, and functions of numbers, results and files.
ON_THE_HOST = {
    "averaging.recorded_components",
    "certificates.best_of",
    "certificates.read",
    "curvature.condition_number",
    "curvature.condition_of_pairs",
    "curvature.effective_dimension",
    "curvature.negative_share",
    "curvature.spectral_entropy",
    "volume.gaussian_free_energy",
}
# The first needs curvlinops; the second refuses devices that PyHessian does not know, which is tested below.
ELSEWHERE = {"curvature.kfac", "curvature.pyhessian_spectrum"}


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in a result that can be compared, by where it stands."""
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if isinstance(value, torch.Tensor):
        yield path, value.detach().cpu().double().numpy()
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from numbers(getattr(value, field.name), f"{path}.{field.name}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from numbers(item, f"{path}[{key}]")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from numbers(item, f"{path}[{index}]")
    elif isinstance(value, (np.ndarray, float, int, str, bytes, np.generic)):
        yield path, value


@pytest.mark.parametrize("name", MEASURES)
def test_the_numbers_are_those_of_the_cpu(cpu, there, name):
    expected, found = (dict(numbers(MEASURES[name](at))) for at in (cpu, there))
    assert list(found) == list(expected)
    assert found
    for path, value in expected.items():
        if isinstance(value, (float, np.floating)) or getattr(value, "dtype", np.dtype("U1")).kind == "f":
            size = float(np.abs(np.nan_to_num(value, posinf=0.0, neginf=0.0)).max(initial=0.0))
            np.testing.assert_allclose(found[path], value, rtol=1e-6, atol=1e-9 * size, err_msg=path)
        else:
            np.testing.assert_array_equal(found[path], value, err_msg=path)


def test_measuring_with_dropout_leaves_the_generator_of_the_device_alone(pretend):
    x, y = torch.randn(12, 4, device=pretend), torch.zeros(12, dtype=torch.long, device=pretend)
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).to(pretend)
    objective = Objective(model, LOSS, [(x, y)], mode="train")
    before = torch.pretend.get_rng_state()
    assert sharpness.average_case(objective, draws=2).value != 0
    assert torch.equal(torch.pretend.get_rng_state(), before)
    torch.rand(1, device=pretend)
    assert not torch.equal(torch.pretend.get_rng_state(), before)


def test_what_pyhessian_cannot_measure_is_refused_with_a_cure(pretend):
    x, y = torch.randn(6, 4, device=pretend), torch.zeros(6, dtype=torch.long, device=pretend)
    objective = Objective(nn.Linear(4, 3).to(pretend), LOSS, [(x, y)])
    with pytest.raises(MeasurementError, match="engine='lanczos', or move the module to the CPU"):
        curvature.pyhessian_spectrum(objective)


def _is_result(public: Any) -> bool:
    return not callable(public) or (inspect.isclass(public) and not public.__name__.startswith(("Running", "Online")))


def test_every_public_measure_is_measured():
    public = {
        f"{package}.{name}"
        for package in PACKAGES
        for module in [importlib.import_module(f"landscape.{package}")]
        for name in module.__all__
        if not _is_result(getattr(module, name)) and not inspect.ismodule(getattr(module, name))
    }
    covered = {word for name in MEASURES for word in name.split() if "." in word}
    assert public - covered - ON_THE_HOST - ELSEWHERE == set()
