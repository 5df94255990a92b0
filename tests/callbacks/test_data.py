"""Measurement batches are drawn once, with a fixed seed, and without touching the user's loaders."""

from __future__ import annotations

import collections
import itertools
import math

import numpy as np
import pytest
import torch
from landscape_test_trainings import (
    BATCH,
    N_TRAIN,
    Blobs,
    Plain,
    assert_identical,
    fit,
    loader,
    make_trainer,
    run_of,
    seed_all,
)
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset, WeightedRandomSampler

from landscape import MeasurementError
from landscape._batches import fingerprint
from landscape.callbacks import Sharpness
from landscape.callbacks._data import draw, first_loader, stateful_parts


class Broken:
    def __iter__(self):
        raise KeyError("no such item")


class Counts:
    def __iter__(self):
        return itertools.count()


class Holds:
    """Yields what an iterator yields that it holds."""

    def __init__(self, inner):
        self.inner = inner

    def __iter__(self):
        return self.inner


def iter_of(values):
    yield from values


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


class Rows(torch.utils.data.Dataset):
    """Items by index, without a length."""

    def __getitem__(self, index):
        return torch.full((2,), float(index))


def test_a_sampler_gives_the_items_of_a_dataset_without_a_length():
    assert draw(DataLoader(Rows(), sampler=[3, 1], batch_size=2), 8, None, seed=0)[0].tolist() == [[1, 1], [3, 3]]


@pytest.mark.parametrize(
    ("mine", "message"),
    [
        ([torch.zeros(2, 2)], "come from a Tensor without a dataset"),
        (DataLoader(Blobs(0), sampler=[]), "Blobs is empty"),
        (DataLoader(Blobs(8), batch_sampler=[]), "list yields no batches"),
        (DataLoader(Blobs(8), sampler=Broken()), "copy of the loader's Broken raised KeyError"),
        (DataLoader(Blobs(8), sampler=(i for i in range(8))), "generator cannot be copied"),
        (DataLoader(Blobs(8), batch_sampler=Holds(iter_of([[1], [2]]))), "Holds cannot be copied"),
    ],
)
def test_what_cannot_be_drawn_from(mine, message):
    with pytest.raises(MeasurementError, match=message):
        draw(mine, 8, None, seed=0)


def test_all_items_of_a_sampler_without_an_end():
    mine = DataLoader(Rows(), sampler=Counts(), batch_size=2)
    assert torch.cat(list(draw(mine, 6, None, seed=0)))[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(MeasurementError, match="neither Counts nor the dataset has a length; give a number"):
        draw(mine, None, None, seed=0)


def test_a_loader_that_finishes_its_batches_while_it_is_iterated():
    class Finishes(DataLoader):
        def __iter__(self):
            return map(lambda batch: 2 * batch, super().__iter__())

    with pytest.raises(MeasurementError, match="from a Finishes, which has an iterator of its own"):
        draw(Finishes(torch.zeros(4, 2)), 8, None, seed=0)


# ------------------------------------------------------------------ samplers


def test_only_items_of_a_subset_are_measured():
    mine = loader(shuffle=False, sampler=SubsetRandomSampler(range(10, 30)))
    drawn = draw(mine, None, None, seed=0)
    assert torch.equal(inputs(drawn), Blobs().x[10:30])
    some = inputs(draw(mine, 8, None, seed=0))
    chosen = np.sort(np.random.default_rng(0).permutation(20)[:8])
    assert torch.equal(some, Blobs().x[10:30][chosen])


def test_any_order_of_all_items_is_a_uniform_choice_of_them():
    backwards = loader(shuffle=False, sampler=range(N_TRAIN - 1, -1, -1))
    assert fingerprint(draw(backwards, 20, None, seed=0)) == fingerprint(draw(loader(), 20, None, seed=0))


def test_a_weighted_sampler_measures_the_loss_that_the_training_descends():
    weights = torch.tensor([0.0] * 24 + [1.0] * 23 + [25.0])
    sampler = WeightedRandomSampler(weights, 4_800, generator=torch.Generator().manual_seed(2))
    before = sampler.generator.get_state()
    found = inputs(draw(loader(shuffle=False, sampler=sampler), 4_000, None, seed=0))
    heavy = (found == Blobs().x[-1]).all(dim=1).double().mean()
    assert not any((found == x).all(dim=1).any() for x in Blobs().x[:24])
    assert abs(float(heavy) - 25 / 48) < 4 * (0.25 / 4_000) ** 0.5  # four standard errors
    assert torch.equal(before, sampler.generator.get_state())


def test_keys_that_are_no_numbers():
    class Named(torch.utils.data.Dataset):
        def __getitem__(self, key):
            return torch.tensor(float(ord(key)))

    drawn = draw(DataLoader(Named(), sampler=["b", "a", "c"], batch_size=2), None, None, seed=0)
    assert [batch.tolist() for batch in drawn] == [[98.0, 97.0], [99.0]]


def test_a_sampler_that_shuffles_itself_in_place():
    class Shuffles:
        def __init__(self):
            self.order, self.epochs = list(range(N_TRAIN)), 0
            self.data_source = mine_data

        def __iter__(self):
            self.epochs += 1
            np.random.shuffle(self.order)
            return iter(self.order)

    mine_data = Blobs()
    sampler = Shuffles()
    draw(DataLoader(mine_data, sampler=sampler, batch_size=8), 20, None, seed=0)
    assert (sampler.order, sampler.epochs) == (list(range(N_TRAIN)), 0)


@pytest.mark.parametrize(("steps", "count"), [(2, 32), (math.inf, 48), (3, 48)])
def test_a_trainer_that_reads_a_part_of_the_data_in_order(steps, count):
    assert torch.equal(inputs(draw(loader(shuffle=False), None, None, 0, steps)), Blobs().x[:count])
    assert len(inputs(draw(loader(), None, None, 0, steps))) == N_TRAIN  # shuffled: any item may be read


# ------------------------------------------------------------------ batch samplers


class Buckets:
    """Batches of items whose label agrees, in an order that changes from epoch to epoch."""

    def __init__(self, sizes=(3, 5)):
        self.generator = torch.Generator().manual_seed(1)
        self.epochs = 0
        self.sizes = sizes

    def __iter__(self):
        self.epochs += 1
        labels = Blobs().y
        found = [(labels == label).nonzero()[:, 0].split(self.sizes[0]) for label in range(3)]
        batches = [part.tolist() for parts in found for part in parts]
        for index in torch.randperm(len(batches), generator=self.generator).tolist():
            yield batches[index]


def test_a_batch_samplers_own_batches():
    sampler = Buckets()
    drawn = draw(DataLoader(Blobs(), batch_sampler=sampler), None, None, seed=0)
    assert drawn.source == "batch sampler"
    assert all(len(y.unique()) == 1 for _, y in drawn)
    assert drawn.items == [len(x) for x, _ in drawn]
    assert torch.equal(inputs(drawn).sort(dim=0).values, Blobs().x.sort(dim=0).values)
    assert sampler.epochs == 0
    assert torch.equal(sampler.generator.get_state(), Buckets().generator.get_state())


def test_as_many_whole_batches_as_reach_the_examples():
    epoch = list(Buckets())
    drawn = draw(DataLoader(Blobs(), batch_sampler=Buckets()), 10, None, seed=4)
    order = np.random.default_rng(4).permutation(len(epoch))
    reached, chosen = 0, []
    for index in order:
        if reached < 10:
            chosen.append(index)
            reached += len(epoch[index])
    assert sum(drawn.items) == reached
    assert [x.tolist() for x, _ in drawn] == [Blobs().x[epoch[index]].tolist() for index in sorted(chosen)]


def test_a_batch_sampler_without_an_end():
    class Endless:
        def __iter__(self):
            while True:
                yield torch.randint(N_TRAIN, (6,)).tolist()

    mine = DataLoader(Blobs(), batch_sampler=Endless())
    assert draw(mine, 24, None, seed=0).items == [6] * 4
    assert draw(mine, None, None, seed=0).items == [6] * 8  # as many items as the dataset has


def test_batches_are_not_cut_anew():
    with pytest.raises(MeasurementError, match="the batch sampler Buckets decides which examples share a batch"):
        draw(DataLoader(Blobs(), batch_sampler=Buckets()), 10, 4, seed=0)


def test_a_batch_sampler_in_the_samplers_place():
    blobs = Blobs()
    order = torch.utils.data.BatchSampler(range(48), batch_size=6, drop_last=False)
    mine = DataLoader(TensorDataset(blobs.x, blobs.y), sampler=order, batch_size=None)
    drawn = draw(mine, 12, None, seed=0)
    assert (drawn.items, drawn.source) == ([6, 6], "batch sampler")
    assert [x.shape for x, _ in drawn] == [(6, 4)] * 2
    assert torch.equal(inputs(draw(mine, None, None, seed=0)), blobs.x)


# ------------------------------------------------------------------ what is known of the batches


def test_items_and_samples():
    drawn = draw(loader(), 40, None, seed=0)
    assert (drawn.items, drawn.source) == ([16, 16, 8], "dataset")
    assert [len(items) for items in drawn.samples] == [16, 16, 8]
    assert_identical(drawn.collate(drawn.samples[0]), drawn[0])
    joined = drawn.collate(drawn.samples[0] + drawn.samples[2])
    assert torch.equal(joined[0], torch.cat([drawn[0][0], drawn[2][0]]))


def test_samples_stay_as_they_are():
    def collate(items):
        return torch.stack([item.pop("x").mul_(2.0) for item in items])

    data = [{"x": torch.full((2,), float(i))} for i in range(4)]
    drawn = draw(DataLoader([dict(item) for item in data], batch_size=2, collate_fn=collate), None, None, seed=0)
    once, again = (drawn.collate(drawn.samples[1]) for _ in range(2))
    assert once.tolist() == again.tolist() == drawn[1].tolist() == [[4, 4], [6, 6]]


def test_items_of_several_loaders():
    equal = draw({"a": loader(), "b": [loader(24, seed=3)]}, 16, None, seed=0)
    assert equal.items == [16]
    assert_identical(equal.collate(equal.samples[0]), equal[0])
    unequal = draw({"a": loader(), "b": [loader(24, batch_size=4)]}, 16, None, seed=0)
    assert (unequal.items, unequal.samples, unequal.collate) == (None, [], None)


def test_loaders_one_after_another():
    drawn = draw([loader(), loader(24, batch_size=4)], 24, None, seed=0, sequential=True)
    assert drawn.items == [16, 4, 4]
    assert [tuple(x.shape) for x, _ in drawn] == [(16, 4), (4, 4), (4, 4)]


def test_whole_batches_have_no_items():
    whole = TensorDataset(Blobs().x.reshape(6, 8, 4), Blobs().y.reshape(6, 8))
    drawn = draw(DataLoader(whole, batch_size=None), 20, None, seed=0)
    assert (drawn.items, drawn.samples, drawn.collate) == (None, [], None)


def test_a_dataset_that_fetches_whole_batches():
    class Columns(Blobs):
        def __getitems__(self, indices):
            return {"x": self.x[indices], "y": self.y[indices]}

    drawn = draw(DataLoader(Columns(), batch_size=16, collate_fn=lambda columns: columns), 20, None, seed=0)
    assert [len(batch["x"]) for batch in drawn] == [16, 4]
    assert (drawn.items, drawn.samples) == (None, [])


# ------------------------------------------------------------------ the rest


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


def test_hooks_before_the_transfer(tmp_path):
    class Pads(Plain):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            x, y = batch
            return torch.cat([x, x], dim=1), y

        def training_step(self, batch, batch_idx):
            x, y = batch
            return super().training_step((x[:, 4:], y), batch_idx) if x.shape[1] == 8 else 0 / 0

    trainer = fit(tmp_path, Sharpness(draws=2, steps=1, on_error="raise"), module=Pads())
    assert run_of(trainer).dataset("sharpness").attrs["measured"]["source"] == "dataset"


@pytest.mark.filterwarnings("ignore:the loss of Ranks is measured as the mean over the batches")
def test_the_recorded_loss_is_the_one_of_the_batch_samplers_batches(tmp_path):
    class Triplets:
        """Anchor, positive and negative, twice in each batch."""

        def __iter__(self):
            labels = Blobs().y
            one, other = ((labels == label).nonzero()[:, 0].tolist() for label in (0, 1))
            for start in range(0, 8, 4):
                yield [*one[start : start + 2], other[start], *one[start + 2 : start + 4], other[start + 1]]

        def __len__(self):
            return 2

    class Ranks(Plain):
        def training_step(self, batch, batch_idx):
            codes = self.net(batch[0])
            return torch.nn.functional.triplet_margin_loss(codes[0::3], codes[1::3], codes[2::3])

    seed_all()
    trainer = make_trainer(tmp_path, [Sharpness(draws=2, steps=1, on_error="raise")])
    data = DataLoader(Blobs(), batch_sampler=Triplets())
    trainer.fit(Ranks(), data)
    with torch.no_grad():
        steps = [trainer.lightning_module.training_step(batch, 0) for batch in data]
    rows = run_of(trainer).dataset("sharpness")
    assert rows.attrs["measured"]["n_examples"] == 12
    assert float(rows["train_loss"][-1]) == pytest.approx(float(torch.stack(steps).mean()), rel=1e-6)


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
