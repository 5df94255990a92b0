"""Prequential code lengths against closed forms, and what a code must not know."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from scipy.special import gammaln
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape import MeasurementError
from landscape.compression._entropy import kt_bits
from landscape.description import AdamTraining, prequential, prequential_orders


def labelled(n: int = 64, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels in a random order, each its own input."""
    y = torch.randint(0, classes, (n,), generator=torch.Generator().manual_seed(seed))
    return y[:, None].float(), y


def closed_form(counts: np.ndarray, prior: float) -> float:
    """log2 Γ(n + Kα)/Γ(Kα) − Σ log2 Γ(n_a + α)/Γ(α)."""
    k = len(counts)
    nats = gammaln(counts.sum() + k * prior) - gammaln(k * prior) - (gammaln(counts + prior) - gammaln(prior)).sum()
    return float(nats / math.log(2))


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("prior", [0.5, 1.0])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_counting_label_by_label_gives_the_closed_form(helpers, classes: int, prior: float, seed: int) -> None:
    x, y = labelled(40, classes)
    found = prequential(
        lambda: helpers.Counts(classes, prior), (x, y), helpers.Counts.learn, blocks=range(1, 41), seed=seed
    )
    counts = np.bincount(y.numpy(), minlength=classes)
    assert found.bits == pytest.approx(closed_form(counts, prior), rel=1e-12)
    if prior == 0.5:
        assert found.bits == pytest.approx(kt_bits(counts), rel=1e-12)
    assert found.uniform_bits == pytest.approx(40 * math.log2(classes), rel=1e-14)
    assert found.ratio == found.bits / found.uniform_bits


def test_counting_by_blocks_uses_what_was_sent_before_each_block(helpers) -> None:
    x, y = labelled(100, 3)
    ends = [10, 11, 40, 100]
    found = prequential(lambda: helpers.Counts(3, 0.5), (x, y), helpers.Counts.learn, blocks=ends, shuffle=False)
    expected = [10 * math.log2(3)]
    for start, stop in zip(ends, ends[1:], strict=False):
        past = np.bincount(y[:start], minlength=3) + 0.5
        expected.append(float(-np.log2(past / past.sum())[y[start:stop].numpy()].sum()))
    np.testing.assert_allclose(found.block_bits, expected, rtol=1e-12)
    assert found.block_ends.tolist() == ends
    assert found.block_labels.tolist() == [10, 1, 29, 60]
    assert found.bits == pytest.approx(sum(expected), rel=1e-12)


def test_a_perfect_model_costs_the_first_block_only(helpers) -> None:
    x, y = labelled(64, 3)
    certain = helpers.Always(lambda x: 1e4 * nn.functional.one_hot(x[:, 0].long(), 3))
    found = prequential(lambda: helpers.Always(certain), (x, y), helpers.untrained, blocks=4)
    assert found.block_ends.tolist() == [8, 16, 32, 64]
    assert found.block_bits.tolist() == [8 * math.log2(3), 0, 0, 0]
    assert found.bits == 8 * math.log2(3)


def test_a_uniform_predictor_costs_the_uniform_code(helpers) -> None:
    uniform = helpers.Always(lambda x: torch.zeros(len(x), 8))
    x, y = labelled(64, 8)
    found = prequential(lambda: helpers.Always(uniform), (x, y), helpers.untrained)
    assert found.bits == pytest.approx(64 * 3, rel=1e-14)
    assert found.ratio == pytest.approx(1.0, rel=1e-14)
    assert found.classes == 8


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_label_of_probability_zero(helpers, smoothing: float) -> None:
    wrong = helpers.Always(lambda x: torch.log(1.0 - nn.functional.one_hot(x[:, 0].long(), 2)))
    x, y = labelled(16, 2)
    found = prequential(lambda: helpers.Always(wrong), (x, y), helpers.untrained, blocks=2, smoothing=smoothing)
    expected = 8 * math.log2(2 / smoothing) if smoothing else math.inf
    assert found.block_bits == pytest.approx([8.0, expected], rel=1e-12)
    assert found.bits == pytest.approx(8 + expected, rel=1e-12)


def test_smoothing_costs_a_sure_and_right_model_little(helpers) -> None:
    certain = helpers.Always(lambda x: 1e4 * nn.functional.one_hot(x[:, 0].long(), 3))
    found = prequential(lambda: helpers.Always(certain), labelled(64, 3), helpers.untrained, blocks=2, smoothing=0.03)
    assert found.block_bits[1] == pytest.approx(-32 * math.log2(0.97 + 0.01), rel=1e-12)
    assert found.smoothing == 0.03


def test_what_is_no_number_stays_so(helpers) -> None:
    broken = helpers.Always(lambda x: torch.full((len(x), 2), math.nan))
    orders = prequential_orders(lambda: helpers.Always(broken), labelled(16, 2), helpers.untrained, seeds=[0, 1])
    assert np.isnan([orders.bits, orders.stderr, *orders.lengths]).all()
    assert orders.block_bits[0, 0] == 1.0
    assert np.isnan(orders.block_bits[:, 1:]).all()


def test_one_class_has_nothing_to_say(helpers) -> None:
    x = torch.zeros(9, 1)
    found = prequential(lambda: helpers.Counts(1, 0.5), (x, torch.zeros(9, dtype=torch.int64)), helpers.Counts.learn)
    assert (found.bits, found.uniform_bits) == (0.0, 0.0)
    assert math.isnan(found.ratio)


@pytest.mark.parametrize(
    ("blocks", "n", "ends"),
    [
        (8, 1400, [11, 22, 44, 88, 175, 350, 700, 1400]),
        (1, 5, [5]),
        (8, 1, [1]),
        (8, 3, [1, 2, 3]),
        (4, 5, [1, 2, 3, 5]),
        (100, 16, [1, 2, 4, 8, 16]),
        ([2, 3, 7], 7, [2, 3, 7]),
    ],
)
def test_block_ends(helpers, blocks, n: int, ends: list[int]) -> None:
    found = prequential(lambda: helpers.Counts(3, 0.5), labelled(n), helpers.Counts.learn, blocks=blocks)
    assert found.block_ends.tolist() == ends
    assert found.block_labels.sum() == found.n_labels == n
    assert len(found.block_bits) == len(ends)


@pytest.mark.parametrize("blocks", [0, -1, [], [0, 4], [2, 2, 4], [3, 2, 4], [2, 3], [2, 5]])
def test_blocks_that_do_not_fit_are_refused(helpers, blocks) -> None:
    with pytest.raises(ValueError, match="blocks?.*expected"):
        prequential(lambda: helpers.Counts(3, 0.5), labelled(4), helpers.Counts.learn, blocks=blocks)


def test_a_model_sees_the_past_in_order_and_nothing_else(helpers) -> None:
    n = 40
    x, y = torch.arange(n), torch.zeros(n, dtype=torch.int64)
    trained, asked = [], []

    def train(model, examples) -> None:
        trained.append(examples[0].tolist())

    def scores(x: torch.Tensor) -> torch.Tensor:
        asked.append(x.tolist())
        return torch.zeros(len(x), 2)

    prequential(lambda: helpers.Always(scores), (x, y), train, blocks=4, seed=3)
    order = sum(asked, [])
    assert sorted(order) == list(range(n)) != order
    assert trained == [order[:5], order[:10], order[:20]]
    assert [len(each) for each in asked] == [5, 5, 10, 20]
    prequential(lambda: helpers.Always(scores), (x, y), train, blocks=4, seed=4)
    assert trained[3] != trained[0]


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 3))


def points(n: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()


def test_equal_seeds_give_equal_codes_and_leave_no_trace() -> None:
    train = AdamTraining(learning_rate=0.02, steps=60)
    first = prequential(network, points(), train, blocks=4, seed=1)
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    second = prequential(network, points(), train, blocks=4, seed=1)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()
    np.testing.assert_array_equal(first.block_bits, second.block_bits)
    other = prequential(network, points(), train, blocks=4, seed=2)
    assert other.bits != first.bits
    assert first.to_dict()["bits"] == first.bits


def test_generators_are_put_back_after_a_training_that_fails() -> None:
    def fails(model, examples) -> None:
        torch.rand(3)
        np.random.rand()
        raise RuntimeError("no training today")

    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    with pytest.raises(RuntimeError, match="no training today"):
        prequential(network, points(20), fails)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])


def test_a_training_may_return_another_model(helpers) -> None:
    def train(model, examples):
        learnt = helpers.Counts(3, 0.5)
        learnt.learn(examples)
        return learnt

    x, y = labelled(40, 3)
    found = prequential(lambda: helpers.Counts(3, 0.5), (x, y), train, blocks=range(1, 41))
    assert found.bits == pytest.approx(kt_bits(np.bincount(y.numpy(), minlength=3)), rel=1e-12)


def test_orders_are_the_codes_of_their_seeds() -> None:
    train = AdamTraining(learning_rate=0.02, steps=40)
    orders = prequential_orders(network, points(), train, blocks=3, seeds=[4, 2])
    each = [prequential(network, points(), train, blocks=3, seed=seed) for seed in (4, 2)]
    assert orders.lengths.tolist() == [result.bits for result in each]
    assert orders.bits == pytest.approx(np.mean(orders.lengths))
    assert orders.stderr == pytest.approx(abs(each[0].bits - each[1].bits) / 2)
    assert orders.ratio_stderr == pytest.approx(orders.stderr / orders.uniform_bits)
    np.testing.assert_array_equal(orders.block_bits, [result.block_bits for result in each])
    assert math.isnan(prequential_orders(network, points(), train, blocks=2, seeds=[0]).stderr)
    for seeds in ([], [1, 1]):
        with pytest.raises(ValueError, match="seeds"):
            prequential_orders(network, points(), train, seeds=seeds)


def test_batches_are_joined() -> None:
    x, y = points(50)
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    train = AdamTraining(steps=20)
    whole = prequential(network, (x, y), train, blocks=3)
    np.testing.assert_array_equal(prequential(network, loader, train, blocks=3).block_bits, whole.block_bits)
    orders = prequential_orders(network, loader, train, blocks=3, seeds=[0])
    np.testing.assert_array_equal(orders.block_bits, [whole.block_bits])
    np.testing.assert_array_equal(orders.block_labels, [[13, 12, 25]])


def test_sequences_with_ignored_targets_count_labels(helpers) -> None:
    x = torch.zeros(8, 5)
    y = torch.ones(8, 5, dtype=torch.int64)
    y[:, 3:] = -100
    found = prequential(
        lambda: helpers.Always(lambda x: torch.zeros(len(x), 4, x.shape[1])), (x, y), helpers.untrained, blocks=2
    )
    assert found.n_labels == 24
    assert found.block_labels.tolist() == [12, 12]
    assert found.bits == pytest.approx(24 * 2)


def test_costs_of_ones_own(helpers) -> None:
    def nats(model, batch) -> torch.Tensor:
        return torch.full((len(batch["label"]),), 0.5)

    examples = {"input": torch.zeros(32, 3), "label": torch.zeros(32)}
    found = prequential(object, examples, helpers.untrained, blocks=2, nats=nats, classes=16)
    assert found.block_bits == pytest.approx([16 * 4, 16 * 0.5 / math.log(2)])
    with pytest.raises(ValueError, match="belong together"):
        prequential(object, examples, helpers.untrained, nats=nats)
    with pytest.raises(MeasurementError, match="one number for each label"):
        prequential(object, examples, helpers.untrained, nats=lambda *_: torch.zeros(2, 2), classes=2)


@pytest.mark.parametrize(
    ("examples", "sentence"),
    [
        ([], "no examples"),
        ((torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)), "no examples"),
        (torch.zeros(4, 2), "expected a tuple"),
        (3, "expected a tuple"),
        ((torch.zeros(4, 2), torch.zeros(3, dtype=torch.int64)), "cannot be put in order"),
        ((torch.zeros(4, 2), ["a", "b", "c", "d"]), "cannot be put in order"),
        ([(torch.zeros(2, 2), torch.zeros(2)), (torch.zeros(2, 3), torch.zeros(2))], "cannot be joined"),
        ((torch.zeros(4, 2), torch.zeros(4)), "give class indices"),
        ((torch.zeros(4, 2), torch.full((4,), 3)), "labels from 3 to 3 and scores of 3 classes"),
        ((torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.int64)), "expected \\(examples, classes\\)"),
        ({"x": torch.zeros(4, 2)}, "no pair of inputs and class indices"),
    ],
)
def test_examples_that_do_not_fit_are_a_sentence(examples, sentence: str) -> None:
    with pytest.raises(MeasurementError, match=sentence):
        prequential(network, examples)


def test_models_that_do_not_fit_are_a_sentence(helpers) -> None:
    same = network()
    with pytest.raises(ValueError, match="same model twice"):
        prequential(lambda: same, points(20), helpers.untrained)
    with pytest.raises(MeasurementError, match="expected a tensor of scores"):
        prequential(lambda: helpers.Always(lambda x: [x]), points(20), helpers.untrained)
    for options in ({"smoothing": 1.0}, {"smoothing": math.nan}, {"smoothing": -0.1}):
        with pytest.raises(ValueError, match="smoothing"):
            prequential(network, points(20), **options)
    for wrong in ({"steps": 0}, {"held_out": 0.0}, {"held_out": 1.0}, {"learning_rate": math.nan}, {"patience": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            AdamTraining(**wrong)
