"""The code of a trained network that has the best bound: a walk along a family's ladder, coarse to fine."""

from __future__ import annotations

import numpy as np
import torch
from tqdm import tqdm

from landscape._errors import MeasurementError
from landscape.certificates._certificate import claimable
from landscape.certificates._counting import count_wrong
from landscape.certificates._grids import GridTensor
from landscape.certificates._payload import WeightsCode, payload_of, tensors_of
from landscape.certificates._skeleton import Skeleton, array_of
from landscape.compression._bitstream import encode
from landscape.compression._families import family_of
from landscape.objective import Objective

_EVERY = 8  # rungs of a ladder: half an octave
_FINENESS = range(2, 13, 2)  # grids of the other tensors: steps of 2^−k root mean squares


def code_weights(
    skeleton: Skeleton,
    trained: Skeleton,
    constructed: Skeleton | None,
    objective: Objective,
    *,
    family: str,
    seed: int,
    delta: float,
    progress: bool | None = None,
) -> WeightsCode:
    """Code a trained network in a family of codes, at the knob with the least bound.

    The knob stands in the stream, so that looking at many of them costs nothing: the code is one of the networks at all
    knobs at once. The walk ends where the bits alone, with no error at all, make a worse bound than the best one found.

    Args:
        skeleton: A network of the same architecture, which serves as working space.
        trained: The trained network.
        constructed: The network as its architecture constructs it, whose equal tensors are left out; None to code all.
        objective: The loss over the examples, of the skeleton's module.
        family: Name of the family.
        seed: Seed of the construction.
        delta: δ.
        progress: Whether to show a progress bar on stderr; by default only where that is a terminal.

    Returns:
        The code.

    Raises:
        MeasurementError: A buffer of whole numbers is not as constructed.
        ValueError: There is no such family.
    """
    search = _Search(skeleton, objective, delta)
    others = _not_constructed(trained, constructed)
    finest = {name: GridTensor.of(array_of(value), _FINENESS[-1]) for name, value in others.items()}
    knobs = family_of(family).ladder(skeleton.layout)[::_EVERY]
    hidden = None if progress is None else not progress
    for knob in tqdm(knobs, desc="coding the weights", unit="grid", disable=hidden, leave=False):
        code = WeightsCode(encode(trained.parameters, float(knob), family=family), seed, finest)
        if search.hopeless(code):
            break
        search.consider(code)
    if others:
        best = search.best[1]
        for fineness in _FINENESS[:-1]:
            grids = {name: GridTensor.of(array_of(value), fineness) for name, value in others.items()}
            search.consider(WeightsCode(best.code, seed, grids))
    return search.best[1]


class _Search:
    def __init__(self, skeleton: Skeleton, objective: Objective, delta: float):
        self._skeleton, self._objective, self._delta = skeleton, objective, delta
        self._best: tuple[float, WeightsCode] | None = None

    @property
    def best(self) -> tuple[float, WeightsCode]:
        assert self._best is not None  # the first code is always considered
        return self._best

    def hopeless(self, code: WeightsCode) -> bool:
        """Whether the code is too long, however few errors the network makes."""
        return self._best is not None and self._bound(0, code) > self._best[0]

    def consider(self, code: WeightsCode) -> None:
        self._skeleton.load(tensors_of(code, self._skeleton))
        bound = self._bound(count_wrong(self._objective).wrong, code)
        if self._best is None or bound < self._best[0]:
            self._best = (bound, code)

    def _bound(self, wrong: int, code: WeightsCode) -> float:
        bits = 8 * len(payload_of(code, self._skeleton))
        n = self._objective.n_examples
        return claimable(wrong=wrong, n=n, payload_bits=bits, delta=self._delta, method="kl", choices={})


def _not_constructed(trained: Skeleton, constructed: Skeleton | None) -> dict[str, torch.Tensor]:
    """Return the other tensors that must be coded, and refuse whole numbers that cannot be."""
    if constructed is None:
        return trained.others
    for name, tensor in constructed.whole.items():
        if not torch.equal(tensor, trained.whole[name].cpu()):
            raise MeasurementError(
                f"the buffer {name!r} holds whole numbers that are not as constructed; there is no code for them, so "
                "the bits would not be of the whole network. Make them part of the architecture, or floating-point"
            )
    return {
        name: tensor
        for name, tensor in trained.others.items()
        if not np.array_equal(array_of(tensor), array_of(constructed.others[name]))
    }
