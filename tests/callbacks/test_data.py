"""Measurement batches are drawn once, with a fixed seed, and without touching the user's loaders."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from landscape_test_trainings import BATCH, N_TRAIN, Blobs, Plain, assert_identical, fit, loader, make_trainer, run_of
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler

from landscape import MeasurementError
from landscape.callbacks import Sharpness
from landscape.callbacks._data import draw, first_loader, stateful_parts


def inputs(batches):
    return torch.cat([x for x, _ in batches])


def test_all_examples_in_the_datasets_order():
    batches = draw(loader(), None, None, seed=0)
    assert [len(x) for x, _ in batches] == [BATCH] * 3
    assert torch.equal(inputs(batches), Blobs().x)


def test_a_random_choice_without_replacement():
    one, again, other = (draw(loader(), 20, 8, seed=seed) for seed in (0, 0, 1))
    assert [len(x) for x, _ in one] == [8, 8, 4]
    assert len(inputs(one).unique(dim=0)) == 20
    assert torch.equal(inputs(one), inputs(again))
    assert not torch.equal(inputs(one), inputs(other))
    pairs = {tuple(x.tolist()): int(y) for x, y in zip(Blobs().x, Blobs().y, strict=True)}
    assert all(pairs[tuple(x.tolist())] == int(y) for batch in one for x, y in zip(*batch, strict=True))


def test_more_than_there_are():
    assert len(inputs(draw(loader(), 10_000, None, seed=0))) == N_TRAIN


def test_the_loader_stays_as_it_is():
    sampler = WeightedRandomSampler(torch.ones(48), 48, generator=torch.Generator().manual_seed(2))
    mine = loader(shuffle=False, sampler=sampler)
    before = sampler.generator.get_state(), mine.generator.get_state()
    draw(mine, 20, None, seed=0)
    assert_identical(before, (sampler.generator.get_state(), mine.generator.get_state()))


def test_nested_loaders():
    loaders = {"a": loader(), "b": [loader(24, batch_size=4)]}
    batches = draw(loaders, 16, None, seed=0)
    assert len(batches) == 1  # the shorter ends the set
    assert set(batches[0]) == {"a", "b"}
    assert [len(batches[0]["a"][0]), len(batches[0]["b"][0][0])] == [16, 4]


def test_a_dataset_of_whole_batches():
    blobs = Blobs()
    whole = TensorDataset(blobs.x.reshape(6, 8, 4), blobs.y.reshape(6, 8))
    batches = draw(DataLoader(whole, batch_size=None), 20, None, seed=0)
    assert [tuple(x.shape) for x, _ in batches] == [(8, 4)] * 3


def test_a_batch_sampler():
    blobs = Blobs()
    order = torch.utils.data.BatchSampler(range(48), batch_size=6, drop_last=False)
    batches = draw(DataLoader(TensorDataset(blobs.x, blobs.y), batch_sampler=order), 12, None, seed=0)
    assert [len(x) for x, _ in batches] == [6, 6]


def test_the_collation_is_the_users():
    pair = collections.namedtuple("pair", "x y")  # noqa: PYI024 - as users write it
    batches = draw(loader(collate_fn=lambda items: pair(*torch.utils.data.default_collate(items))), 8, None, seed=0)
    assert type(batches[0]).__name__ == "pair"


class Stream(IterableDataset):
    def __iter__(self):
        return iter([1.0])


class Unknown(torch.utils.data.Dataset):
    def __getitem__(self, index):
        return torch.zeros(2)


@pytest.mark.parametrize(
    ("mine", "message"),
    [
        (DataLoader(Stream()), "Stream has no length or no items by index"),
        (DataLoader(Unknown(), sampler=[0, 1]), "Unknown has no length or no items by index"),
        ([torch.zeros(2, 2)], "come from a Tensor without a dataset"),
        (DataLoader(Blobs(0), sampler=[]), "Blobs is empty"),
    ],
)
def test_what_cannot_be_drawn_from(mine, message):
    with pytest.raises(MeasurementError, match=message):
        draw(mine, 8, None, seed=0)


def test_random_transformations_are_repeatable():
    class Jitters(Blobs):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x + torch.rand(4) + float(np.random.rand()), y

    first, second = (draw(DataLoader(Jitters(), batch_size=8), 16, None, seed=3) for _ in range(2))
    assert torch.equal(inputs(first), inputs(second))


def test_parts_with_a_state():
    class Collation:
        def collate(self, items):
            return items

    collation, mine = Collation(), Blobs()
    assert stateful_parts([DataLoader(mine, collate_fn=collation.collate), None]) == [mine, collation]


def test_first_loader():
    assert first_loader(None) is None
    assert first_loader([]) is None
    assert first_loader(["a", "b"]) == "a"
    assert first_loader("a") == "a"


def test_as_the_training_loop_prepares_a_batch(tmp_path):
    class Doubles(Plain):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            x, y = batch
            return 2 * x, y

    trainer = fit(tmp_path, Sharpness(draws=2, steps=1, on_error="raise"), module=Doubles())
    blobs = Blobs()
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(trainer.lightning_module.net(2 * blobs.x), blobs.y)
    assert float(run_of(trainer).dataset("sharpness")["train_loss"][-1]) == pytest.approx(float(loss), rel=1e-6)


def test_validation_that_comes_late(tmp_path):
    class Late(Plain):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", torch.zeros(()))

        def val_dataloader(self):
            return DataLoader(Blobs(24, seed=1), batch_size=12)

    trainer = make_trainer(
        tmp_path, [Sharpness(draws=2, steps=1)], check_val_every_n_epoch=2, num_sanity_val_steps=0, max_epochs=2
    )
    trainer.fit(Late(), loader())
    rows = run_of(trainer).dataset("sharpness")
    assert rows.attrs["held_out"]["n_examples"] == 24
    assert rows["held_out_loss"].notnull().all()
