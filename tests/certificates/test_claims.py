"""What is claimed: the bound from its parts, the charges, and the words."""

from __future__ import annotations

import dataclasses
import math

import pytest

from landscape.bounds import countable_bound
from landscape.certificates import best_of, certify, train_subspace
from landscape.certificates._certificate import claimable


@pytest.fixture(scope="module")
def certificate(cases):
    case = cases["perceptron"]
    return certify(case.trained, case.batches, architecture=case.architecture)


@pytest.mark.parametrize("method", ["exact", "kl", "hoeffding", "catoni"])
def test_the_bound_is_that_of_its_parts_rounded_up(cases, certificate, method):
    case = cases["perceptron"]
    choices = {"checkpoint": 20, "lr": 3}
    charged = certify(
        case.trained, case.batches, architecture=case.architecture, method=method, delta=0.01, choices=choices
    )
    assert charged.charge_bits == pytest.approx(math.log2(60))
    assert charged.bits == charged.payload_bits + charged.charge_bits
    exact = countable_bound(error=charged.error, n=charged.n, bits=charged.bits, delta=0.01, method=method)
    assert exact - 1e-9 <= charged.bound <= exact + 2e-6
    assert round(charged.bound * 1e6) / 1e6 == charged.bound
    assert charged.bound > certificate.bound or method == "exact"
    assert charged.complexity == charged.bound - charged.error


def test_the_methods_hold_on_one_event_so_that_the_choice_is_free():
    for wrong, bits in ((0, 0), (3, 40), (100, 400), (900, 3000)):
        bounds = {
            method: claimable(wrong=wrong, n=1437, payload_bits=bits, delta=0.05, method=method, choices={})
            for method in ("exact", "kl", "hoeffding", "catoni")
        }
        assert bounds["exact"] == min(bounds.values())


def test_the_best_of_several_is_charged(cases):
    case = cases["perceptron"]
    found = [
        certify(
            train_subspace(case.architecture, case.batches, dimension=dimension, epochs=3, progress=False),
            case.batches,
            architecture=case.architecture,
            choices={"lr": 2},
        )
        for dimension in (4, 8, 12)
    ]
    best = best_of(found, "dimension")
    assert best.choices == {"lr": 2, "dimension": 3}
    assert best.charge_bits == pytest.approx(math.log2(6))
    least = min(found, key=lambda each: each.bound)
    assert best.payload == least.payload
    assert best.bound == claimable(
        wrong=best.wrong, n=best.n, payload_bits=best.payload_bits, delta=0.05, method="kl", choices=best.choices
    )
    assert best.bound > least.bound
    assert "dimension, one of 3" in best.statement()
    assert "dimension =" not in best.statement()
    with pytest.raises(ValueError, match="charged already"):
        best_of(found, "lr")
    with pytest.raises(ValueError, match="no certificates"):
        best_of([], "seed")
    with pytest.raises(ValueError, match="different examples or δ"):
        best_of([found[0], dataclasses.replace(found[1], delta=0.1)], "seed")


def test_the_statement_says_what_is_assumed(certificate):
    text = certificate.statement()
    for part in (
        "95 %",
        f"{certificate.bound:.4f}",
        f"({certificate.wrong} of {certificate.n} wrong)",
        f"payload {certificate.payload_bits}",
        "independent draws",
        "fixed before",
        "family = uniform-tensor",
        "delta = 0.05",
        "nothing outside of the payload was chosen",
        "not about any that it was made from",
    ):
        assert part in text
    assert "vacuous" not in text
    charged = dataclasses.replace(certificate, choices={"delta": 2, "architecture": 3})
    assert "delta = " not in charged.statement()
    assert "looked at the examples, or chosen without them: codec" in charged.statement()
    repeated = dataclasses.replace(certificate, data={"fingerprint": "", "repeated": 7})
    assert "7 of them are equal to an earlier one" in repeated.statement()


def test_a_bound_that_guessing_achieves_is_called_vacuous(certificate):
    assert certificate.trivial == pytest.approx(2 / 3)
    vacuous = dataclasses.replace(certificate, bound=0.67)
    assert vacuous.vacuous
    assert "vacuous: it says nothing, as guessing does no worse than 0.6667" in vacuous.statement()
    unknown = dataclasses.replace(certificate, bound=0.99, classes=None)
    assert not unknown.vacuous
    assert "no network errs on more than 1" in dataclasses.replace(unknown, bound=1.0).statement()
