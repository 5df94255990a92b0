"""Certificates on digits: true labels are certified, random ones are not, from the files alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from landscape.certificates import read, verify
from landscape.certificates._reading import from_bytes
from landscape.studies.digits_certificates import SETTINGS, CosineLinear, cell, examples, main

# Measured with three seeds: .336 .335 .335 and .433 .403 .410; .94 to .96 on random labels.
LARGEST = {"cosine, linear": 0.45, "one hidden layer, subspace": 0.55}


# The subspace trains longest; three seeds of both are in the slow test.
QUICK = [name if "linear" in name else pytest.param(name, marks=pytest.mark.slow) for name in SETTINGS]


@pytest.mark.parametrize("name", QUICK)
def test_one_seed(name, tmp_path) -> None:
    path = tmp_path / "a.lsc"
    row = cell(name, 0, random=False, path=path, epochs=30)
    assert row["verified"]
    assert row["bound"] < LARGEST[name]
    assert row["held-out error"] < row["bound"]
    claim = read(path)
    assert (claim.bound, claim.n, claim.delta, claim.choices) == (row["bound"], 1437, 0.05, SETTINGS[name].choices)
    # The images are right and the labels are not: no.
    assert not verify(path, SETTINGS[name].architecture, examples(random_labels=0)[0])
    noise = cell(name, 0, random=True, path=path, epochs=10)
    assert noise["verified"]
    assert noise["vacuous"]
    assert noise["bound"] >= 0.9


@pytest.mark.slow
def test_three_seeds(tmp_path, capsys) -> None:
    table = main(tmp_path)
    assert table["verified"].all()
    for name, largest in LARGEST.items():
        bounds = table[table["network"] == name].set_index("labels")["bound"]
        assert len(bounds["true"]) == 3
        assert (bounds["true"] < largest).all()
        assert (bounds["random"] >= 0.9).all()
    assert len(list(tmp_path.glob("*.lsc"))) == 12
    assert "6 of 6 bounds say something" in capsys.readouterr().out
    claimed = read(tmp_path / "cosine-true-0.lsc")
    content, train, damaged_file = claimed.to_bytes(), examples()[0], tmp_path / "damaged.lsc"
    generator = np.random.default_rng(0)
    for bit in generator.choice(8 * len(content), 1000, replace=False):  # of the file: the checksum tells
        damaged_file.write_bytes(_flipped(content, bit))
        assert verify(damaged_file, CosineLinear, train).certificate is None
    for bit in range(8 * len(claimed.payload)):  # of the stream, under a new checksum: what is accepted is true
        forged = dataclasses.replace(claimed, payload=_flipped(claimed.payload, bit))
        verdict = verify(from_bytes(forged.to_bytes()), CosineLinear, train)
        assert not verdict.valid or verdict.bound <= claimed.bound


def _flipped(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << (int(bit) % 8)
    return bytes(damaged)
