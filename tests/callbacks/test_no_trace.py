"""Training with all callbacks ends bit-identical to training with none."""

from __future__ import annotations

import functools
import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from landscape_test_trainings import (
    BUSY,
    NAMESPACES,
    Blobs,
    Coarser,
    assert_identical,
    everything,
    flat,
    held_out,
    left_behind,
    loader,
    make_trainer,
    seed_all,
    warned,
)
from torch.utils.data import DataLoader, WeightedRandomSampler

from landscape import open_run
from landscape.callbacks import (
    Compressibility,
    HessianSpectrum,
    LearningCoefficient,
    LossSurface,
    Sharpness,
    SWATrajectory,
    default_callbacks,
)
from landscape.compression._families import FAMILIES

ALL_GROUPS = {"hessian_spectrum", "sharpness", "swa_trajectory", "compressibility", "mode_connectivity"}


def train(folder, callbacks, namespace="pytorch_lightning", noise=0.0, workers=0, data=None, **options):
    seed_all()
    persistent = {"num_workers": workers, "persistent_workers": workers > 0}
    data = data or loader(noise=noise, **persistent)
    trainer = make_trainer(folder, callbacks, namespace, **options)
    module = BUSY[namespace]()
    trainer.fit(module, data, held_out())
    return trainer, left_behind(trainer, module, data.dataset, data.generator)


def failures(trainer):
    run = open_run(f"{trainer.log_dir}/landscape.h5")
    reasons = {group: set(run.dataset(group)["reason"].values) - {""} for group in run.groups}
    return {group: found for group, found in reasons.items() if found}


# What a training without callbacks leaves behind, by its options: many tests compare with the same one.
WITHOUT = {}


def left_without(folder, **options):
    key = repr(sorted(options.items()))
    if key not in WITHOUT:
        _, WITHOUT[key] = train(folder, [], **options)
    return WITHOUT[key]


def check(tmp_path, callbacks, failing=None, **options):
    """Train with none and with some callbacks, and compare all that is left behind."""
    without = left_without(tmp_path / "without", **options)
    trainer, with_them = train(tmp_path / "with", callbacks, **options)
    assert_identical(without, with_them)
    assert without["log"]
    if failing is None:
        assert failures(trainer) == {}
    return trainer


@pytest.mark.parametrize(("namespace", "overhead"), list(zip(NAMESPACES, (None, "10%"), strict=True)))
def test_default_callbacks_in_both_namespaces(tmp_path, namespace, overhead):
    callbacks = default_callbacks(overhead=overhead, examples=24)
    callbacks[-1].curve_steps = 5
    trainer = check(tmp_path, callbacks, namespace=namespace)
    run = open_run(f"{trainer.log_dir}/landscape.h5")
    assert set(run.groups) == ALL_GROUPS
    assert all(len(run.dataset(group)["step"]) for group in ALL_GROUPS)


def test_augmentation_from_the_datasets_own_generator_in_the_middle_of_an_epoch(tmp_path):
    check(tmp_path, everything(every_n_steps=2), noise=0.3)


@pytest.mark.parametrize("noise", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
def test_persistent_workers_in_the_middle_of_an_epoch(tmp_path, noise):
    check(tmp_path, everything(every_n_steps=2), noise=noise, workers=1)


class Pairs:
    """Batches of neighbours, drawn anew in each epoch from three generators."""

    def __init__(self):
        self.generator = np.random.default_rng(3)
        self.order = list(range(0, 24, 2))

    def __iter__(self):
        self.generator.shuffle(self.order)
        random.shuffle(self.order)
        for index in torch.randperm(12).tolist():
            yield [self.order[index], self.order[index] + 1]

    def __len__(self):
        return 12


def own_batches(**options):
    generator = torch.Generator().manual_seed(7)
    return DataLoader(Blobs(noise=0.2), batch_sampler=Pairs(), generator=generator, **options)


def weighted(**options):
    sampler = WeightedRandomSampler(torch.arange(48) % 4, 48, generator=torch.Generator().manual_seed(5))
    return loader(shuffle=False, sampler=sampler, **options)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [own_batches, weighted])
def test_samplers_with_a_state_in_the_middle_of_an_epoch(tmp_path, make, workers):
    found = []
    every = 9 if make is own_batches else 5  # of 48 steps, of 6
    for folder, callbacks in (("without", []), ("with", everything(every_n_steps=every))):
        data = make(num_workers=workers, persistent_workers=workers > 0)
        trainer, left = train(tmp_path / folder, callbacks, data=data)
        sampler = data.batch_sampler if make is own_batches else data.sampler
        found.append(left | {"sampler": vars(sampler)})
    assert_identical(*found)
    assert failures(trainer) == {}
    source = open_run(f"{trainer.log_dir}/landscape.h5").dataset("sharpness").attrs["measured"]["source"]
    assert source == ("batch sampler" if make is own_batches else "dataset")


def test_gradient_accumulation(tmp_path):
    check(tmp_path, everything(every_n_steps=1), accumulate_grad_batches=2)


def test_gradient_clipping_and_validation_in_the_middle_of_an_epoch(tmp_path):
    check(tmp_path, everything(every_n_steps=1), gradient_clip_val=0.1, val_check_interval=2)


def test_logging(tmp_path):
    trainer = check(tmp_path, everything(log=True, every_n_steps=2))
    assert "landscape/lambda_max" in trainer.callback_metrics


def test_measuring_in_train_mode(tmp_path):
    check(tmp_path, everything(mode="train"))


def test_measuring_the_running_mean(tmp_path):
    spectrum = HessianSpectrum(k=2, probes=1, max_matvecs=8, trace_max_matvecs=9, examples=24, weights="swa")
    sharpness = Sharpness(draws=2, steps=2, examples=24, weights="swa", every_n_steps=2)
    trainer = check(tmp_path, [SWATrajectory(examples=24), spectrum, sharpness])
    assert open_run(f"{trainer.log_dir}/landscape.h5").groups == [
        "hessian_spectrum_swa",
        "sharpness_swa",
        "swa_trajectory",
    ]


def test_pyhessian(tmp_path):
    check(tmp_path, [HessianSpectrum(k=1, engine="pyhessian", examples=24, tol=0.1)])


def test_layers_and_gap(tmp_path):
    settings = {"k": 2, "examples": 24, "trace_max_matvecs": 10, "every_n_steps": 2, "layers": True, "gap": True}
    check(tmp_path, [HessianSpectrum(**settings, probes=1, max_matvecs=8)])


def test_families_noise_and_law(tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "coarser", Coarser())
    settings = {"tolerances": (0.1,), "every_n_steps": 2, "examples": 24, "log": True}
    check(tmp_path, [Compressibility(family=["uniform-tensor", "coarser"], noise_radius=True, law=True, **settings)])


def test_learning_coefficient(tmp_path):
    settings = {"chains": 2, "draws": 6, "every_n_steps": 4, "examples": 24, "batch_size": 8, "log": True}
    check(
        tmp_path,
        [LearningCoefficient(**settings), LearningCoefficient(method="mala", name="adjusted", layers=True, **settings)],
    )


def test_a_collation_with_a_generator_of_its_own(tmp_path):
    class Jitter:
        def __init__(self):
            self.generator = torch.Generator().manual_seed(3)

        def collate(self, items):
            x, y = torch.utils.data.default_collate(items)
            return x + 0.1 * torch.randn(x.shape, generator=self.generator), y

    _, without = train(tmp_path / "without", [], data=loader(collate_fn=Jitter().collate))
    _, with_them = train(tmp_path / "with", everything(), data=loader(collate_fn=Jitter().collate))
    assert_identical(without, with_them)


def jitter():
    """A transformation with a generator of its own, of which only its closure knows."""
    generator = np.random.default_rng(3)
    return lambda items, scale=0.1: _moved(items, scale * generator.normal())


def _moved(items, by):
    x, y = torch.utils.data.default_collate(items)
    return x + by, y


@pytest.mark.parametrize("wrapped", [jitter, lambda: functools.partial(jitter(), scale=0.2)])
def test_a_transformation_with_a_generator_in_its_closure(tmp_path, wrapped):
    _, without = train(tmp_path / "without", [], data=loader(collate_fn=wrapped()))
    _, with_them = train(tmp_path / "with", everything(every_n_steps=2), data=loader(collate_fn=wrapped()))
    assert_identical(without, with_them)


@pytest.mark.skipif(not hasattr(pl.callbacks, "EMAWeightAveraging"), reason="Lightning before 2.6 has none")
@pytest.mark.parametrize("last", [True, False])
def test_beside_lightnings_own_weight_averaging(tmp_path, last):
    def callbacks(*mine):
        averaging = pl.callbacks.EMAWeightAveraging(decay=0.5)
        return [*mine, averaging] if last else [averaging, *mine]

    _, without = train(tmp_path / "without", callbacks())
    mine = everything(every_n_epochs=1)
    trainer, with_them = train(tmp_path / "with", callbacks(*mine))
    assert_identical(without, with_them)
    assert failures(trainer) == {}
    rows = open_run(f"{trainer.log_dir}/landscape.h5").dataset("mode_connectivity")
    # At the very end Lightning puts the averaged weights into the module; the row tells which were measured.
    averaged = np.array_equal(rows["end_b"].values[-1], flat(trainer.lightning_module))
    assert averaged is not last
    shared = open_run(f"{trainer.log_dir}/landscape.h5").dataset("sharpness")["train_loss"].values[-1]
    assert bool(float(rows["train_loss"][-1]) == shared) is last


def test_a_measure_that_raises_in_the_middle(tmp_path):
    class Broken(Sharpness):
        def measure(self, objective, held_out, trainer):
            batch = objective.batches[0]
            objective.module.training_step(batch, 0)
            with torch.no_grad():
                for parameter in objective.module.parameters():
                    parameter.fill_(9.0)
            objective.module.accuracy.reset()
            torch.rand(3)
            raise RuntimeError("in the middle")

    with pytest.warns(UserWarning, match="RuntimeError: in the middle") as caught:
        trainer = check(tmp_path, [Broken(examples=24, every_n_steps=2), *everything()], failing=True)
    (message,) = warned(caught)
    assert message.startswith("Broken could not measure at step 2: evaluating or differentiating the loss")
    ((group, reasons),) = failures(trainer).items()
    assert group == "sharpness"
    assert all(reason.endswith("(RuntimeError: in the middle)") for reason in reasons)


def test_a_training_that_raises_keeps_its_own_error(tmp_path):
    class Stops(BUSY["pytorch_lightning"]):
        def on_train_batch_start(self, batch, batch_idx):
            if self.calls == 4:
                raise ZeroDivisionError("the training's own")

    trainer = make_trainer(tmp_path, everything(every_n_steps=1))
    with pytest.raises(ZeroDivisionError, match="the training's own"):
        trainer.fit(Stops(), loader(), held_out())
    steps = open_run(f"{trainer.log_dir}/landscape.h5").dataset("sharpness")["step"].values
    assert steps.tolist() == [1, 2, 3, 4]


def test_surfaces_and_components(tmp_path):
    common = {"examples": 24, "on_error": "raise"}
    callbacks = [
        SWATrajectory(every_n_steps=1, keep=2, components=3, dtype="bfloat16", **common),
        LossSurface(points=3, every_n_epochs=1, batchnorm="recompute", held_out=True, **common),
        LossSurface("hessian", points=3, dimensions=1, **common),
        LossSurface("trajectory", points=3, **common),
    ]
    trainer = check(tmp_path, callbacks)
    groups = {"swa_trajectory", "swa_trajectory_components", "loss_surface", "loss_surface_2", "loss_surface_3"}
    assert set(open_run(f"{trainer.log_dir}/landscape.h5").groups) == groups
