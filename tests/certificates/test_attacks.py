"""Forged and hostile files: none is accepted with a claim that does not hold, and each refusal is a sentence."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct

import numpy as np
import pytest
import torch
from torch import nn

from landscape._errors import FileError, MeasurementError
from landscape.certificates import best_of, certify, decoded, read, train_subspace, verify
from landscape.certificates._certificate import claimable
from landscape.certificates._reading import from_bytes
from landscape.compression._families import FAMILIES


@pytest.fixture(scope="module")
def certificate(cases):
    case = cases["perceptron"]
    code = train_subspace(case.architecture, case.batches, dimension=20, epochs=25, progress=False)
    return certify(code, case.batches, architecture=case.architecture, choices={"dimension": 4})


def header_of(certificate) -> dict:
    content = certificate.to_bytes()
    (length,) = struct.unpack_from(">I", content, 10)
    return json.loads(content[14 : 14 + length])


def framed(header: bytes, payload: bytes) -> bytes:
    """Return a file with a checksum that is right, whatever stands in it."""
    body = struct.pack(">8sHI", b"\x89LSC\r\n\x1a\n", 1, len(header)) + header
    body += struct.pack(">I", len(payload)) + payload
    return body + hashlib.sha256(body).digest()


def forged(certificate, **changes) -> bytes:
    header = json.dumps(header_of(certificate) | changes, sort_keys=True, ensure_ascii=False)
    return framed(header.encode(), changes.get("payload", certificate.payload))


@pytest.fixture
def verdict(certificate, perceptron_case, tmp_path):
    """Verify bytes as a file."""

    def verified(content: bytes):
        path = tmp_path / "forged.lsc"
        path.write_bytes(content)
        return verify(path, perceptron_case.architecture, perceptron_case.batches)

    assert verified(forged(certificate)), "the frame of these tests is right"
    return verified


def at_least(certificate, **changes) -> float:
    """Return a bound that follows from changed parts, as a forger would put it into the header."""
    parts = {name: getattr(certificate, name) for name in ("wrong", "n", "payload_bits", "delta", "method", "choices")}
    return claimable(**parts | changes)


def test_errors_that_are_understated(certificate, verdict):
    fewer = certificate.wrong - 1
    for changes in ({"wrong": fewer}, {"wrong": fewer, "bound": at_least(certificate, wrong=fewer)}, {"wrong": 0}):
        found = verdict(forged(certificate, **changes))
        assert not found
        assert "are claimed" in found.reason
        assert found.wrong == certificate.wrong
    # A bound with room to spare does not cover errors that are not there.
    assert not verdict(forged(certificate, wrong=fewer, bound=0.99))


def test_more_examples_than_there_are(certificate, verdict):
    raised = verdict(forged(certificate, n=10 * certificate.n, bound=at_least(certificate, n=10 * certificate.n)))
    assert not raised
    assert "these are not the examples" in raised.reason
    assert "1 of" not in verdict(forged(certificate)).reason
    hidden = verdict(forged(certificate, data=dict(certificate.data) | {"repeated": 1}))
    assert "0 of the examples are equal to an earlier one, not 1" in hidden.reason


def test_what_is_no_longer_charged_or_surer_must_show_in_the_bound_and_in_the_words(certificate, verdict):
    # Nobody can see how many alternatives there were: but the bound moves, and the statement says what is on trust.
    assert not verdict(forged(certificate, choices={"dimension": 400}))
    assert not verdict(forged(certificate, delta=1e-4))
    cheaper = verdict(forged(certificate, choices={}, bound=at_least(certificate, choices={})))
    assert cheaper
    assert "dimension = 20" in cheaper.certificate.statement()
    assert "nothing outside of the payload was chosen" in cheaper.certificate.statement()


@pytest.mark.parametrize(
    "codec",
    [
        {"seed": 1},
        {"seed": 2**70},
        {"seed": 1.5},
        {"codec": "weights", "family": "uniform-tensor"},
        {"start": "zero"},
        {"dimension": 21},
        {"dimension": 19},
        {"dimension": None},
        {"dimension": 2**60},
        {"dimension": -1},
        {"dimension": [20]},
        {"taps": 2},
        {"taps": 2**60},
        {"start": ["initial"]},
    ],
)
def test_other_settings_of_the_codec_decode_to_no_network_of_this_claim(certificate, verdict, codec):
    found = verdict(forged(certificate, codec=dict(certificate.codec) | codec))
    assert not found, found.reason


def test_a_stream_that_is_another_networks_or_longer(certificate, cases, verdict):
    case = cases["perceptron"]
    other = train_subspace(case.architecture, case.batches, dimension=20, epochs=3, progress=False)
    payload = certify(other, case.batches, architecture=case.architecture).payload
    assert not verdict(framed(json.dumps(header_of(certificate)).encode(), payload))
    for tail in (b"\0", b"\xff", certificate.payload):
        found = verdict(framed(json.dumps(header_of(certificate)).encode(), certificate.payload + tail))
        assert "not the one of the network" in found.reason or "damaged" in found.reason


@pytest.mark.slow
def test_a_thousand_flipped_bits_of_the_file_under_a_new_checksum_claim_nothing_false(certificate, verdict):
    content = certificate.to_bytes()[:-32]
    fields = [field.name for field in dataclasses.fields(certificate)]
    accepted = 0
    for bit in np.random.default_rng(3).choice(8 * len(content), 1000, replace=False):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << (bit % 8)
        try:
            claim = from_bytes(bytes(damaged) + hashlib.sha256(damaged).digest())
        except FileError:
            continue
        # What is printed and has no part in the bound may read otherwise; a claim may only be weaker.
        changed = {name for name in fields if getattr(claim, name) != getattr(certificate, name)}
        if changed <= {"versions", "loss"}:
            continue
        found = verdict(bytes(damaged) + hashlib.sha256(damaged).digest())
        if found:
            accepted += 1
            assert found.wrong <= claim.wrong
            assert claim.bound >= at_least(claim, wrong=found.wrong)
            assert claim.n == certificate.n
    assert accepted < 100


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (b"[" * 200_000, "nested without end"),
        (b'{"a":' * 200_000, "nested without end"),
        (b"\xff\xfe{}", "no JSON"),
        (b"", "no JSON"),
        (b"null", "expected an object"),
        (b'{"n": 1e999}', "beyond all numbers"),
        (b'{"n": NaN}', "NaN is no number"),
        (b'{"n": ' + b"9" * 5000 + b"}", "no JSON"),
        (b'{"n": 1, "n": 2}', "twice"),
        (b'{"loss": "\\ud800"}', "surrogates"),
    ],
)
def test_a_header_that_is_nonsense_or_without_end(header, sentence):
    with pytest.raises(FileError, match=sentence):
        from_bytes(framed(header, b""))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"bound": 10**400}, "an error rate lies between 0 and 1"),
        ({"bound": -0.1}, "an error rate lies between 0 and 1"),
        ({"delta": 0}, "strictly between"),
        ({"delta": 1}, "strictly between"),
        ({"n": 10**400}, "are not the examples"),
        ({"choices": {"lr": 10**4000}}, "and the bound is 0.99"),
        ({"classes": 1}, "from 3 classes, not from 1"),
        ({"data": {"fingerprint": "", "repeated": "none"}}, "not described"),
        ({"data": {"fingerprint": "", "repeated": 10**9}}, "not described"),
        ({"method": "__import__('os').abort()"}, "the method is"),
        ({"codec": {"codec": "weights", "family": "__import__('os').abort()", "seed": 0}}, "no family"),
    ],
)
def test_values_beyond_all_sense(certificate, verdict, changes, sentence):
    found = verdict(forged(certificate, **changes))
    assert not found
    assert sentence in found.reason
    assert len(found.reason) < 1000


@pytest.mark.parametrize(("header", "payload"), [(2**32 - 1, 0), (0, 2**32 - 1)])
def test_lengths_that_are_announced_and_not_there(header, payload):
    content = struct.pack(">8sHI", b"\x89LSC\r\n\x1a\n", 1, header) + struct.pack(">I", payload) + b"\0" * 32
    with pytest.raises(FileError, match="cut short"):
        from_bytes(content)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_streams_that_nobody_wrote_end_in_a_sentence(family, cases):
    case = cases["convolution"]
    honest = certify(case.trained, case.batches, architecture=case.architecture, family=family)
    rng = np.random.default_rng(0)
    for length in range(1, 61):
        # Noise, or the beginning of a network and then noise.
        start = b"" if length % 2 else honest.payload[: len(honest.payload) // 2]
        payload = start + rng.bytes(length)
        with pytest.raises(MeasurementError):
            decoded(dataclasses.replace(honest, payload=payload), case.architecture)


def test_a_subspace_that_would_fill_the_memory_is_refused_before_it_is_drawn():
    def wide() -> nn.Module:
        return nn.Linear(20_000, 10)

    batches = [(torch.randn(4, 20_000, generator=torch.Generator().manual_seed(0)), torch.arange(4))]
    code = train_subspace(wide, batches, dimension=2, epochs=1, progress=False)
    certificate = certify(code, batches, architecture=wide)
    for changes in ({"dimension": 200_000}, {"dimension": 200_000, "taps": 100_000}):
        vast = dataclasses.replace(certificate, codec=dict(certificate.codec) | changes)
        found = verify(vast, wide, batches)
        assert not found
        assert "signs, expected at most" in found.reason


def test_names_that_are_no_plain_text(certificate, cases, tmp_path):
    case = cases["perceptron"]
    code = train_subspace(case.architecture, case.batches, dimension=5, epochs=1, progress=False)
    named = certify(code, case.batches, architecture=case.architecture, choices={"größe 学": 3, "a\n\x1b[2Jvalid": 2})
    named.save(tmp_path / "ü.lsc")
    again = read(tmp_path / "ü.lsc")
    assert again == named
    assert "größe 学, one of 3" in again.statement()
    assert "\x1b" not in again.statement()
    assert r"'a\n\x1b[2Jvalid', one of 2" in again.statement()
    assert best_of([again, again], "name").choices["name"] == 2


def test_a_refusal_quotes_no_control_characters(certificate, verdict):
    described = dict(certificate.architecture) | {"modules": ["\x1b[2J\nvalid: " + "x" * 10_000]}
    data = dict(certificate.data) | {"fingerprint": "\x1b[2J"}
    for changes in ({"architecture": described}, {"data": data}):
        found = verdict(forged(certificate, **changes))
        assert not found
        assert found.reason.isprintable()
        assert r"\x1b[2J" in found.reason
        assert len(found.reason) < 1010


def test_the_architecture_alone_says_what_is_built(certificate, perceptron_case, tmp_path):
    # Settings, classes and families of a file are data: nothing of them is imported or evaluated by verification.
    marker = tmp_path / "executed"
    evil = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    described = dict(certificate.architecture) | {"class": evil, "settings": {"x": evil}}
    for changes in (
        {"architecture": described},
        {"codec": {"codec": evil, "seed": 0}},
        {"loss": evil, "versions": {"torch": evil}},
    ):
        path = tmp_path / "evil.lsc"
        path.write_bytes(forged(certificate, **changes))
        verify(path, perceptron_case.architecture, perceptron_case.batches)
    assert not marker.exists()
