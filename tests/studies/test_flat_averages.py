"""Weight averages lie flatter than the end of a decayed training, where labels are noisy (Izmailov et al. 2018)."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch

from landscape import Objective, open_run
from landscape.averaging import swa
from landscape.callbacks import SWATrajectory
from landscape.curvature import hessian, trace
from landscape.sharpness import average_case, trace_chc
from landscape.studies._digits import DigitsMLP, loaders

EPOCHS, BRANCH = 40, 30


def fit(seed: int, decay_from: float, *callbacks: pl.Callback) -> DigitsMLP:
    """Train on noisy digits; up to the epoch where the learning rate begins to fall, all of a seed are the same."""
    pl.seed_everything(seed, verbose=False)
    module = DigitsMLP(width=128, decay_from=decay_from, epochs=EPOCHS, label_noise=0.2, seed=seed)
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loaders(100, 0.2, seed)[0])
    return module


def flatness(module: DigitsMLP, seed: int) -> dict[str, float]:
    """Measure on all training examples, with the labels that were trained on."""
    objective = Objective.from_lightning(module, [loaders(100, 0.2, seed)[0].dataset.tensors])
    return {
        "loss": float(objective.loss()),
        "trace": trace(hessian(objective), seed=0).value,
        "trace_chc": trace_chc(objective, seed=0).value,
        "average_case": average_case(objective, rho=0.1, draws=40, seed=0).value,
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning.*")
def test_averages_are_flatter_than_decayed_training(tmp_path, capsys) -> None:
    torch.set_num_threads(1)
    for seed in range(3):
        decayed = fit(seed, BRANCH / EPOCHS)
        recorded = SWATrajectory(start=BRANCH, path=tmp_path / f"{seed}.h5", on_error="raise")
        averaged = fit(seed, 1.0, recorded)
        averaged.load_state_dict(swa(open_run(tmp_path / f"{seed}.h5")))
        flat, sharp = flatness(averaged, seed), flatness(decayed, seed)
        with capsys.disabled():
            print(seed, flat, sharp, sep="\n")
        assert flat["trace"] < 0.95 * sharp["trace"]
        assert flat["average_case"] < 0.95 * sharp["average_case"]
