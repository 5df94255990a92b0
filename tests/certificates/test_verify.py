"""Verification says no to other data, other architectures and false claims, and yes however the batches are cut."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from landscape._errors import MeasurementError
from landscape.certificates import certify, train_subspace, verify


@pytest.fixture(scope="module")
def certificate(cases):
    case = cases["perceptron"]
    code = train_subspace(case.architecture, case.batches, dimension=20, epochs=10, progress=False)
    return certify(code, case.batches, architecture=case.architecture)


def test_order_and_cut_of_the_examples_do_not_matter(certificate, perceptron_case):
    x, y = perceptron_case.examples
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    cut = list(zip(x[order].split(77), y[order].split(77), strict=True))
    verdict = verify(certificate, perceptron_case.architecture, [*cut[:3], (x[:0], y[:0]), *cut[3:]])
    assert verdict
    assert str(verdict).startswith("valid: the decoded network gets")
    assert verdict.to_dict()["certificate"]["bound"] == certificate.bound


def test_other_examples(certificate, perceptron_case):
    (x, y), rest = perceptron_case.batches
    other = y.clone()
    other[3] = (other[3] + 1) % 3
    for batches in ([(x, other), rest], [(x, y)], [(x, y), rest, (x, y)], [(x * (1 + 1e-6), y), rest]):
        verdict = verify(certificate, perceptron_case.architecture, batches)
        assert not verdict
        assert "these are not the examples of the certificate" in verdict.reason


def test_repeated_examples_are_counted(perceptron_case):
    (x, y), rest = perceptron_case.batches
    batches = [(x, y), rest, (x[:30], y[:30])]
    with pytest.raises(MeasurementError, match="30 of 2030 examples are equal to an earlier one"):
        certify(perceptron_case.trained, batches)
    certificate = certify(perceptron_case.trained, batches, repeats_are_draws=True)
    assert certificate.data["repeated"] == 30
    assert certificate.n == 2030


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (
            lambda: nn.Sequential(nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3)),
            r"1: Tanh() where this one has 1: ReLU()",
        ),
        (lambda: nn.Sequential(nn.Linear(16, 7), nn.Tanh(), nn.Linear(7, 3)), "shape [6, 16]"),
        (lambda: nn.Sequential(nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3), nn.Identity()), "modules, this one"),
        (lambda: nn.Sequential(nn.Linear(16, 6).double(), nn.Tanh(), nn.Linear(6, 3)), "float64"),
    ],
)
def test_other_architectures(certificate, perceptron_case, network, sentence):
    verdict = verify(certificate, network, perceptron_case.batches)
    assert not verdict
    assert "another architecture" in verdict.reason
    assert sentence in verdict.reason


def test_another_initialisation(certificate, perceptron_case):
    def scaled() -> nn.Module:
        network = perceptron_case.architecture()
        nn.init.zeros_(network[0].bias)
        return network

    verdict = verify(certificate, scaled, perceptron_case.batches)
    assert not verdict
    assert "constructs other values" in verdict.reason


@pytest.mark.parametrize(
    "changes", [{"bound": 0.1}, {"delta": 1e-6}, {"choices": {"lr": 1000}}, {"method": "hoeffding"}]
)
def test_claims_that_do_not_follow(certificate, perceptron_case, changes):
    verdict = verify(dataclasses.replace(certificate, **changes), perceptron_case.architecture, perceptron_case.batches)
    assert not verdict
    assert verdict.bound > dataclasses.replace(certificate, **changes).bound
    assert f"the bound is {verdict.bound:.6f}, not" in verdict.reason


def test_claims_that_are_weaker_than_they_need_be(certificate, perceptron_case):
    modest = dataclasses.replace(certificate, bound=0.9, wrong=certificate.wrong + 5)
    verdict = verify(modest, perceptron_case.architecture, perceptron_case.batches)
    assert verdict
    assert f"the certificate has {certificate.wrong + 5} wrong" in verdict.reason
    other = dataclasses.replace(certificate, classes=10)
    assert "from 3 classes, not from 10" in verify(other, perceptron_case.architecture, perceptron_case.batches).reason
    unknown = dataclasses.replace(certificate, method="best")
    assert "method is 'best'" in verify(unknown, perceptron_case.architecture, perceptron_case.batches).reason


def test_other_codec_settings_are_other_networks(certificate, perceptron_case):
    other = dataclasses.replace(certificate, codec=dict(certificate.codec) | {"seed": 1})
    verdict = verify(other, perceptron_case.architecture, perceptron_case.batches)
    assert not verdict
    assert "constructs other values" in verdict.reason
    nonsense = dataclasses.replace(certificate, codec={})
    assert "seed is None" in verify(nonsense, perceptron_case.architecture, perceptron_case.batches).reason


def test_a_truncated_or_lengthened_stream(certificate, perceptron_case):
    for payload in (certificate.payload[:-1], certificate.payload + b"\0", b""):
        verdict = verify(
            dataclasses.replace(certificate, payload=payload), perceptron_case.architecture, perceptron_case.batches
        )
        assert not verdict


def test_a_file_that_is_not_there(tmp_path, perceptron_case):
    verdict = verify(tmp_path / "none.lsc", perceptron_case.architecture, perceptron_case.batches)
    assert not verdict
    assert "does not exist" in verdict.reason


def test_constructors_that_draw_by_numpy_are_seeded_as_well(perceptron_case):
    def drawn() -> nn.Module:
        network = perceptron_case.architecture()
        with torch.no_grad():
            network[0].weight.copy_(torch.from_numpy(np.random.standard_normal((6, 16))))
        return network

    code = train_subspace(drawn, perceptron_case.batches, dimension=10, epochs=1, progress=False)
    assert verify(certify(code, perceptron_case.batches, architecture=drawn), drawn, perceptron_case.batches)
