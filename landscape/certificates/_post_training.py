"""The code of a trained network that has the best bound: a walk along a family's ladder, coarse to fine."""

from __future__ import annotations

import math

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

_RUNGS = 40  # of a ladder that are tried at most, about; half an octave apart on that of a uniform grid
_FINENESS = (2, 4, 8, 10, 12)  # grids of the other tensors: steps of 2^−k root mean squares
_USUAL = 6  # the grid while the weights' own is searched


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
    knobs at once. The walk, coarse to fine, ends where the bits alone, with no error at all, make a worse bound than
    the best one found; the rungs around that one are tried afterwards.

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
    ladder = family_of(family).ladder(skeleton.layout)
    stride = -(-len(ladder) // _RUNGS)
    hidden = None if progress is None else not progress
    best = 0

    def look(rung: int, fineness: int) -> bool:
        grids = {name: GridTensor.of(array_of(value), fineness) for name, value in others.items()}
        parameters = encode(trained.parameters, float(ladder[rung]), family=family)
        return search.consider(WeightsCode(parameters, seed, grids))

    with tqdm(total=None, desc="coding the weights", unit=" codes", disable=hidden, leave=False) as bar:
        for rung in range(0, len(ladder), stride):
            bar.update()
            if look(rung, _USUAL):
                best = rung
            elif search.hopeless:
                break
        near = [rung for rung in range(best - stride + 1, best + stride) if 0 <= rung < len(ladder) and rung != best]
        for rung in near:
            bar.update()
            best = rung if look(rung, _USUAL) else best
        for fineness in _FINENESS if others else ():
            bar.update()
            look(best, fineness)
    return search.best


class _Search:
    """The best code met."""

    def __init__(self, skeleton: Skeleton, objective: Objective, delta: float):
        self.hopeless = False
        self._skeleton, self._objective, self._delta = skeleton, objective, delta
        self._bound = math.inf
        self._best: WeightsCode | None = None

    @property
    def best(self) -> WeightsCode:
        assert self._best is not None  # the first code is always better than none
        return self._best

    def consider(self, code: WeightsCode) -> bool:
        """Count a code's errors and keep it if it is the best; `hopeless` says that it is too long for any count."""
        bits = 8 * len(payload_of(code, self._skeleton))
        self.hopeless = self._claimable(0, bits) > self._bound
        if self.hopeless:
            return False
        self._skeleton.load(tensors_of(code, self._skeleton))
        bound = self._claimable(count_wrong(self._objective).wrong, bits)
        if bound >= self._bound:
            return False
        self._bound, self._best = bound, code
        return True

    def _claimable(self, wrong: int, bits: int) -> float:
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
