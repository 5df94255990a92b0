"""Mistakes in arguments are told at once, in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from landscape_test_trainings import Blobs, Weighs, loader

from landscape.callbacks import (
    Compressibility,
    HessianSpectrum,
    LearningCoefficient,
    LossSurface,
    ModeConnectivity,
    Sharpness,
    SWATrajectory,
)
from landscape.callbacks._arguments import accepted, at_least, counts, one_of, positive


def test_at_least():
    at_least(2, a=2, b=None, c=3.5)
    with pytest.raises(ValueError, match="b is 1; it must be at least 2"):
        at_least(2, a=2, b=1)


@pytest.mark.parametrize("value", [0, -0.5, float("nan")])
def test_positive(value):
    positive(a=1e-9, b=None)
    with pytest.raises(ValueError, match=f"rho is {value}; it must be a positive number$"):
        positive(rho=value)
    with pytest.raises(ValueError, match="a positive number or None$"):
        positive(examples=value)


def test_one_of():
    one_of(("a", "b"), x="a")
    with pytest.raises(ValueError, match="x is 'c'; it must be 'a' or 'b'"):
        one_of(("a", "b"), x="c")


def test_numbers_that_are_none():
    for value in ("1e-3", True, [1.0]):
        with pytest.raises(ValueError, match="it must be a number"):
            positive(tol=value)
        with pytest.raises(ValueError, match="it must be a number"):
            at_least(0, tol=value)


def test_counts():
    counts(1, k=np.int64(3), n=None)
    for value in (2.5, True, "3"):
        with pytest.raises(ValueError, match="it must be a whole number"):
            counts(1, k=value)
    with pytest.raises(ValueError, match="it must be a whole number, such as 10000"):
        counts(1, steps=1e4)
    with pytest.raises(ValueError, match="k is 0; it must be at least 1"):
        counts(1, k=0)


MISTAKES = [
    (
        HessianSpectrum,
        {"every_n_epoch": 1},
        "HessianSpectrum has no argument 'every_n_epoch'; did you mean every_n_epo",
    ),
    (Sharpness, {"measure": ["sam"]}, "Sharpness has no argument 'measure'; did you mean measures?"),
    (LossSurface, {"direction": "random"}, "LossSurface has no argument 'direction'; did you mean directions?"),
    (SWATrajectory, {"qqq": 1}, "SWATrajectory has no argument 'qqq'; there are start, every_n_epochs"),
    (ModeConnectivity, {"bath_size": 1}, "did you mean batch_size?"),
    (HessianSpectrum, {"k": 2.5}, "k is 2.5; it must be a whole number"),
    (HessianSpectrum, {"k": True}, "k is True; it must be a whole number"),
    (HessianSpectrum, {"z": 0.1}, r"z is 0.1; give a list: z=\[0.1\]"),
    (HessianSpectrum, {"tol": "1e-3"}, "tol is '1e-3'; give a relative accuracy such as 1e-3, or 'sample'"),
    (Sharpness, {"measures": "sam"}, r"measures is 'sam'; give a list: measures=\['sam'\]"),
    (Sharpness, {"measures": [("sam", {"roh": 0.1})]}, "sam has no setting 'roh'; did you mean rho?"),
    (Sharpness, {"measures": ["worst_cas"]}, "Sharpness has no measure 'worst_cas'; did you mean worst_case?"),
    (Sharpness, {"measures": [("average_case", {"draws": 2.5})]}, "draws is 2.5; it must be a whole number"),
    (Compressibility, {"tolerances": 0.1}, r"tolerances is 0.1; give a list: tolerances=\[0.1\]"),
    (Compressibility, {"examples": 0}, "examples is 0; it must be a positive number or None"),
    (Compressibility, {"examples": 10.5}, "examples is 10.5; it must be a whole number"),
    (LearningCoefficient, {"chains": 1.5}, "chains is 1.5; it must be a whole number"),
    (LearningCoefficient, {"seed": -1}, "seed is -1; it must be at least 0"),
    (Sharpness, {"noise_seed": -3}, "noise_seed is -3; it must be at least 0"),
    (Sharpness, {"every_n_epochs": 1, "every_n_steps": 0}, "every_n_steps is 0; it must be a positive number"),
    (Sharpness, {"every_n_epochs": 0.5, "every_n_steps": 10}, "every_n_epochs is 0.5; it must be a whole number"),
    (Sharpness, {"batches": (torch.ones(4, 3), torch.ones(4))}, r"give a list of such pairs: batches=\[\(x, y\)\]"),
    (Sharpness, {"batches": Blobs()}, "give a loader over it"),
    (Sharpness, {"batches": loader()}, "draws its examples at random.*leave it out"),
]


@pytest.mark.parametrize(("kind", "arguments", "words"), MISTAKES)
def test_mistakes_are_answered_when_the_callback_is_made(kind, arguments, words):
    with pytest.raises((TypeError, ValueError), match=words):
        kind(**arguments)


def test_a_path_that_is_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"is a folder; give a file in it, such as .*landscape.h5"):
        HessianSpectrum(path=tmp_path)


def test_a_callback_of_the_user_has_the_same_answers():
    with pytest.raises(TypeError, match="Weighs has no argument 'logs'; did you mean log?"):
        Weighs(logs=True)
    assert "every_n_epochs" in accepted(Weighs)
