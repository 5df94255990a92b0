"""Certificates on handwritten digits: what is learnt can be certified, what is learnt by heart cannot.

Two networks that take few bits (a linear classifier of 15 cosine coefficients on a grid, and a network of one hidden
layer in a random subspace) are trained on 1,437 of scikit-learn's digits with true and with random labels, certified,
written, and verified from their files alone. Run it with `python scripts/digits_certificates.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from scipy.fft import dct
from sklearn.datasets import load_digits
from torch import nn

from landscape._errors import LandscapeError
from landscape.certificates import certify, decoded, train_subspace, verify

N_TRAIN = 1437
DELTA = 0.05
COEFFICIENTS = 15
DIMENSION = 200
SEEDS = (0, 1, 2)


class CosineLinear(nn.Module):
    """A linear classifier of the coefficients of lowest frequency of an 8 × 8 image's cosine transform."""

    def __init__(self) -> None:
        super().__init__()
        transform = torch.tensor(dct(np.eye(8), axis=0, norm="ortho"), dtype=torch.float32)
        lowest = sorted((i + j, i, j) for i in range(8) for j in range(8))[:COEFFICIENTS]
        waves = torch.stack([torch.outer(transform[i], transform[j]).flatten() for _, i, j in lowest])
        self.waves: torch.Tensor
        self.register_buffer("waves", waves)
        self.linear = nn.Linear(COEFFICIENTS, 10, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of images."""
        return self.linear(x @ self.waves.T)


class OneHidden(nn.Sequential):
    """A ReLU network with one hidden layer of 32 units."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


@dataclasses.dataclass(frozen=True)
class Setting:
    """A network and how it is trained.

    Attributes:
        architecture: What builds it.
        training: Arguments of `train_subspace`.
        choices: What is charged: whoever has seen digits before has an idea of how many numbers they take.
    """

    architecture: Callable[[], nn.Module]
    training: dict[str, Any]
    choices: dict[str, int]


SETTINGS = {
    "cosine, linear": Setting(
        CosineLinear, {"dimension": None, "start": "zero", "first_step": 6.0}, {"coefficients": 64, "start": 2}
    ),
    "one hidden layer, subspace": Setting(OneHidden, {"dimension": DIMENSION}, {"dimension": 2410, "start": 2}),
}


@functools.cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Return all 1,797 images, 64 numbers in [0, 1] each, and their labels, in one fixed random order."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return torch.tensor(data.data[order] / 16.0, dtype=torch.float32), torch.tensor(data.target[order])


def examples(random_labels: int | None = None) -> tuple[list[Any], list[Any]]:
    """Return training and held-out digits, a batch each.

    Args:
        random_labels: Seed of random labels for all of them; None for the true ones.

    Returns:
        1,437 and 360 examples.
    """
    x, y = digits()
    if random_labels is not None:
        y = torch.from_numpy(np.random.default_rng((random_labels, 2)).integers(0, 10, len(y)))
    return [(x[:N_TRAIN], y[:N_TRAIN])], [(x[N_TRAIN:], y[N_TRAIN:])]


def cell(name: str, seed: int, random: bool, path: Path, epochs: int = 60) -> dict[str, Any]:
    """Train one network, write its certificate, verify the file, and look at the held-out digits.

    Args:
        name: Which of `SETTINGS`.
        seed: Of construction, subspace, order and random labels: fixed before, not the best of several.
        random: Whether the labels are random.
        path: Where the certificate is written.
        epochs: Of the training.

    Returns:
        A row of the table.

    Raises:
        LandscapeError: The file that was just written cannot be read.
    """
    setting = SETTINGS[name]
    train, held_out = examples(seed if random else None)
    training = {"epochs": epochs, "seed": seed, "order_seed": seed, "delta": DELTA, "progress": False}
    code = train_subspace(setting.architecture, train, **training, **setting.training)
    certify(code, train, architecture=setting.architecture, delta=DELTA, choices=setting.choices).save(path)
    verdict = verify(path, setting.architecture, train)
    if verdict.certificate is None:
        raise LandscapeError(verdict.reason)
    network, (x, y) = decoded(verdict.certificate, setting.architecture), held_out[0]
    with torch.no_grad():
        held_out_error = float((network(x).argmax(1) != y).double().mean())
    claim = verdict.certificate
    return {"network": name, "labels": "random" if random else "true", "seed": seed} | {
        "bits": claim.bits,
        "train error": claim.error,
        "held-out error": held_out_error,
        "bound": claim.bound,
        "vacuous": claim.vacuous,
        "verified": verdict.valid,
    }


def main(out: Path | None = None, seeds: Sequence[int] = SEEDS, epochs: int = 60) -> pd.DataFrame:
    """Certify both networks on true and random labels, and print the table.

    Args:
        out: Folder for the certificates; by default a temporary one.
        seeds: Seeds, each a certificate of its own.
        epochs: Of each training.

    Returns:
        The table, a row a certificate.
    """
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if out is None else out
        folder.mkdir(parents=True, exist_ok=True)
        for name in SETTINGS:
            for random in (False, True):
                for seed in seeds:
                    file = f"{name.split(',')[0].replace(' ', '-')}-{'random' if random else 'true'}-{seed}.lsc"
                    rows.append(cell(name, seed, random, folder / file, epochs))
    table = pd.DataFrame(rows)
    console = Console(highlight=False, width=120)
    console.print(table.round(4).to_string(index=False))
    true, noise = (table[table["labels"] == labels]["bound"] for labels in ("true", "random"))
    console.print(
        f"With true labels {int((true < 0.9).sum())} of {len(true)} bounds say something (below .9, which guessing "
        f"achieves), with random labels {int((noise < 0.9).sum())} of {len(noise)}."
    )
    return table


if __name__ == "__main__":
    main()
