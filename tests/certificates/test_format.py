"""The file: bytes into a certificate and back, damage, and what a reader without torch gets."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import subprocess
import sys

import numpy as np
import pytest

from landscape._errors import FileError
from landscape.certificates import certify, read, verify
from landscape.certificates._reading import from_bytes


@pytest.fixture(scope="module")
def certificate(cases):
    case = cases["perceptron"]
    return certify(case.trained, case.batches, architecture=case.architecture, choices={"width": 4})


def test_bytes_are_as_documented(certificate):
    content = certificate.to_bytes()
    magic, version, length = struct.unpack(">8sHI", content[:14])
    assert (magic, version) == (b"\x89LSC\r\n\x1a\n", 1)
    header = json.loads(content[14 : 14 + length])
    assert header["wrong"] == certificate.wrong
    (size,) = struct.unpack(">I", content[14 + length : 18 + length])
    assert content[18 + length : 18 + length + size] == certificate.payload
    assert content[18 + length + size :] == hashlib.sha256(content[: 18 + length + size]).digest()
    assert from_bytes(content) == certificate


def test_a_thousand_flipped_bits_are_all_caught(certificate, cases, tmp_path):
    content, path = certificate.to_bytes(), tmp_path / "a.lsc"
    for bit in np.random.default_rng(0).choice(8 * len(content), 1000, replace=False):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        verdict = verify(path, cases["perceptron"].architecture, cases["perceptron"].batches)
        assert not verdict.valid
        assert verdict.certificate is None


def test_a_thousand_flipped_bits_of_the_stream_under_a_new_checksum_claim_nothing_false(certificate, cases):
    case = cases["perceptron"]
    draws = np.random.default_rng(1).integers(0, 8 * len(certificate.payload), 1000)
    verdicts = {}
    for bit in np.unique(draws):
        damaged = bytearray(certificate.payload)
        damaged[bit // 8] ^= 1 << (int(bit) % 8)
        forged = from_bytes(dataclasses.replace(certificate, payload=bytes(damaged)).to_bytes())
        verdicts[bit] = verify(forged, case.architecture, case.batches)
    for verdict in verdicts.values():
        assert verdict.certificate.bound == certificate.bound
        # Another network may be accepted only where the claim is true of it.
        assert not verdict.valid or verdict.bound <= certificate.bound
    assert sum(verdict.valid for verdict in verdicts.values()) < len(verdicts) / 2


def test_a_file_cut_at_any_byte_is_refused(certificate, tmp_path):
    content, path = certificate.to_bytes(), tmp_path / "a.lsc"
    for length in range(len(content)):
        with pytest.raises(FileError, match="cut short"):
            from_bytes(content[:length])
    with pytest.raises(FileError, match="damaged"):
        from_bytes(content + b"\0")
    path.write_bytes(content[:100])
    with pytest.raises(FileError, match=r"a\.lsc is cut short"):
        read(path)


def test_what_is_no_certificate_is_said_to_be_none(certificate, tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        read(tmp_path / "none.lsc")
    with pytest.raises(FileError, match="cannot be read"):
        read(tmp_path)
    with pytest.raises(FileError, match="no certificate"):
        from_bytes(b"PK\x03\x04 something else")
    newer = bytearray(certificate.to_bytes())
    newer[9] = 2
    with pytest.raises(FileError, match="version 2"):
        from_bytes(bytes(newer))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"n": 0}, "n is 0; a bound needs at least one example"),
        ({"n": True}, "'n' is True"),
        ({"wrong": -1}, "-1 of"),
        ({"delta": 0.0}, "delta is 0.0; it must lie strictly between 0 and 1"),
        ({"delta": 1.5}, "delta is 1.5"),
        ({"choices": {"lr": 0}}, "whole numbers, 1 at least"),
        ({"choices": {"lr": 1.5}}, "whole numbers, 1 at least"),
        ({"classes": 0}, "classes is 0"),
        ({"bound": "none"}, "'bound' is 'none'"),
        ({"data": {}}, "not described"),
        ({"architecture": {}}, "not described"),
    ],
)
def test_a_header_that_is_nonsense_under_a_good_checksum(certificate, cases, tmp_path, changes, sentence):
    path = tmp_path / "a.lsc"
    path.write_bytes(dataclasses.replace(certificate, **changes).to_bytes())
    with pytest.raises(FileError, match=sentence):
        read(path)
    verdict = verify(path, cases["perceptron"].architecture, cases["perceptron"].batches)
    assert not verdict.valid
    assert sentence in verdict.reason


def test_a_reader_needs_no_torch(certificate, tmp_path):
    path = tmp_path / "a.lsc"
    certificate.save(path)
    code = f"""
import sys
from landscape.certificates import Certificate, best_of, read
claim = read({str(path)!r})
parts = claim.to_dict()
print(claim.error, claim.bound, claim.bits, claim.payload_bits, claim.charge_bits, claim.n, claim.delta, claim.method)
assert claim.statement() and parts["complexity"] == claim.bound - claim.error and "payload" not in parts
assert best_of([claim, claim], "seed").bound > claim.bound
assert not {{"torch", "pytorch_lightning", "lightning"}} & set(sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = (certificate.error, certificate.bound, certificate.bits, certificate.payload_bits)
    expected += (certificate.charge_bits, certificate.n, certificate.delta, certificate.method)
    assert run.stdout.split() == [str(value) for value in expected]
    assert certificate.charge_bits == pytest.approx(2)


def test_saving_replaces_and_leaves_nothing_beside(certificate, tmp_path):
    path = tmp_path / "a.lsc"
    path.write_bytes(b"old")
    certificate.save(path)
    assert read(path) == certificate
    assert [each.name for each in tmp_path.iterdir()] == ["a.lsc"]
