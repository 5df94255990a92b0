"""The prequential code: labels sent block by block, each by a model trained on the blocks before it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from landscape import _batches
from landscape._errors import MeasurementError
from landscape._results import Result
from landscape.description._examples import as_batch, block_ends, check_fraction, on_device_of, take
from landscape.description._labels import Labels, evaluating, joined, model_labels
from landscape.description._lightning import LightningTraining, lightning_namespace
from landscape.description._training import AdamTraining
from landscape.isolation import seeded

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
MakeModel = Callable[[], Any]
Train = Callable[[Any, Any], Any]
Nats = Callable[[Any, Any], torch.Tensor]

BLOCKS = 8
_ORDER, _MODEL = 0, 1  # keys of the random numbers of a seed
_CHUNK = 1024  # examples evaluated at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Prequential(Result):
    """The prequential code length of labels in one order: an exact number for this order and seed.

    Attributes:
        bits: Length of the whole code; infinite where a label had probability zero, NaN where a model has diverged.
        block_bits: Length of each block, shape (blocks,).
        block_ends: Examples sent after each block, shape (blocks,).
        block_labels: Labels in each block: with several or ignored labels an example, not as many as examples.
        uniform_bits: Length of the uniform code, n log2(classes).
        ratio: `bits` over `uniform_bits`; NaN where that is zero.
        n_labels: How many labels were sent, n.
        classes: How many values a label can have.
        smoothing: Weight ε of the uniform distribution in every prediction.
        seed: Seed of the order and of the trainings.
    """

    bits: float
    block_bits: Floats
    block_ends: Integers
    block_labels: Integers
    uniform_bits: float
    ratio: float
    n_labels: int
    classes: int
    smoothing: float
    seed: int


def prequential(
    make_model: MakeModel,
    examples: Any,
    train: Train | None = None,
    *,
    blocks: int | Sequence[int] = BLOCKS,
    seed: int = 0,
    shuffle: bool = True,
    smoothing: float = 0.0,
    nats: Nats | None = None,
    classes: int | None = None,
    progress: bool | None = None,
) -> Prequential:
    """Measure how many bits send the labels block by block, by models that learn from what has been sent.

    L(y | x) = n_1 log2(classes) + Σ_k Σ_{i in block k} −log2 p(y_i | x_i; model trained on all blocks before k)

    Both sides know the inputs, `make_model`, `train` and the seed, so that the receiver trains the same models and the
    code can be decoded: nothing of the models is sent. What `train` chooses by the examples it gets costs no bits
    either; the default training stops by a held-out tail of them. A model that has not learnt costs about the uniform
    code; one that is sure and wrong costs more than that, without bound.

    Within, the global random generators have states that come from the seed alone, and are put back.

    Args:
        make_model: Makes a new model at each call: a class, or a function. A LightningModule, any other module that
            gives scores of classes when it is called with the inputs, or whatever `nats` understands.
        examples: One batch `(inputs, labels)`, or a batch of another structure as the training step takes it; or a list
            of batches, a DataLoader. The examples stand along the first dimension of every tensor.
        train: Called with a fresh model and the batch of all examples sent so far, in their order; trains the model in
            place, or returns another one. By default `LightningTraining()` for LightningModules, else `AdamTraining()`.
        blocks: Number of blocks, each as long as all before it (the first two are alike), or the number of examples
            sent after each. The first is sent by the uniform code.
        seed: Seed of the order of the examples, of the initial weights and of the trainings.
        shuffle: Whether the examples are sent in random order; otherwise in their own.
        smoothing: Mix each prediction with the uniform distribution, p ← (1 − ε) p + ε/classes: a label then costs at
            most log2(classes/ε) bits, and −log2(1 − ε) more than without at worst. By default there is none.
        nats: Gives −ln p(y | x) of each label of a batch under a model, a one-dimensional tensor. By default they are
            read off the loss function that a training step calls, or taken from the scores.
        classes: How many values a label can have; needed with `nats`, otherwise as many as there are scores.
        progress: Whether to show a progress bar on stderr; by default only where that is a terminal.

    Returns:
        The length, its blocks, and the uniform code's length.

    Raises:
        MeasurementError: There are no examples, or it cannot be told what the labels cost.
        ValueError: An argument is out of range.

    Source: Dawid 1984, "Present position and potential developments: the prequential approach"; Blier and Ollivier
    2018, arXiv:1802.07044; online coding of Voita and Titov 2020, arXiv:2003.12298.

    Where we differ: block ends double (n/128, ..., n/2, n for eight) where Voita and Titov take 0.1, 0.2, 0.4 ... %; no
    part of a model is handed on from block to block; a training stops by examples that have been sent, never by others.

    Example:
        >>> x = torch.linspace(-1, 1, 64)[:, None]
        >>> labels = (x[:, 0] > 0).long()
        >>> found = prequential(lambda: torch.nn.Linear(1, 2), (x, labels), AdamTraining(learning_rate=0.1))
        >>> found.bits < found.uniform_bits
        True
    """
    check_fraction("smoothing", smoothing, inclusive=True)
    if (nats is None) != (classes is None):
        raise ValueError("`nats` and `classes` belong together: give both, or none of them")
    everything = as_batch(examples)
    count = _batches.n_examples(everything)
    ends = block_ends(blocks, count)
    order = np.random.default_rng((seed, _ORDER)).permutation(count) if shuffle else np.arange(count)
    everything = take(everything, order)
    sender = _Sender(make_model, train, nats, classes)
    found = [sender.labels(everything, 0, int(ends[0]), (seed, _MODEL, 0))]
    lengths = [len(found[0].nats) * math.log2(found[0].classes)]
    hidden = None if progress is None else not progress
    spans = list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
    for index, (start, stop) in enumerate(
        tqdm(spans, desc="prequential code", unit="block", disable=hidden, leave=False), 1
    ):
        found.append(sender.labels(everything, start, stop, (seed, _MODEL, index)))
        lengths.append(found[-1].bits(smoothing))
    labels = joined(found)
    uniform = len(labels.nats) * math.log2(labels.classes)
    total = math.fsum(lengths) if all(map(math.isfinite, lengths)) else sum(lengths)
    return Prequential(
        bits=total,
        block_bits=np.array(lengths, dtype=np.float64),
        block_ends=ends,
        block_labels=np.array([len(part.nats) for part in found], dtype=np.int64),
        uniform_bits=uniform,
        ratio=total / uniform if uniform else math.nan,
        n_labels=len(labels.nats),
        classes=labels.classes,
        smoothing=smoothing,
        seed=seed,
    )


class _Sender:
    """Makes, trains and evaluates the model of each block."""

    def __init__(self, make_model: MakeModel, train: Train | None, nats: Nats | None, classes: int | None) -> None:
        self._make, self._train, self._nats, self._classes = make_model, train, nats, classes
        self._former: Any = None

    def labels(self, everything: Any, start: int, stop: int, key: tuple[int, ...]) -> Labels:
        """Return what the labels of a block cost under a model trained on everything before it.

        Raises:
            ValueError: `make_model` gave the same model as for the block before.
        """
        with seeded(*key), torch.inference_mode(False), torch.enable_grad():
            model = self._make()
            if model is self._former:
                raise ValueError(
                    "make_model returned the same model twice, which has been trained on; it must make a new one at "
                    "each call, such as a class does, or a function that builds the module"
                )
            self._former = model
            if start:
                model = self._trained(model, take(everything, slice(0, start)))
            pieces = _batches.split(take(everything, slice(start, stop)), _CHUNK)
            return joined([self._cost(model, on_device_of(piece, model)) for piece in pieces])

    def _trained(self, model: Any, past: Any) -> Any:
        train = self._train
        if train is None:
            train = AdamTraining() if lightning_namespace(model) is None else LightningTraining()
        other = train(model, past)
        return model if other is None else other

    def _cost(self, model: Any, batch: Any) -> Labels:
        if self._nats is None or self._classes is None:
            return model_labels(model, batch)
        with evaluating(model):
            nats = torch.as_tensor(self._nats(model, batch)).detach().double()
        if nats.ndim != 1:
            raise MeasurementError(
                f"`nats` returned a tensor of shape {tuple(nats.shape)}, expected one number for each label of the "
                "batch"
            )
        return Labels(nats, self._classes)
