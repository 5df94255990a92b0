"""One line gives a sensible set, on any module, as the README says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from landscape_test_trainings import BUSY, Plain, fit, held_out, loader, make_trainer, run_of

import landscape
from landscape.callbacks import default_callbacks


def quick(callbacks):
    callbacks[-1].curve_steps = 3
    return callbacks


def test_everything_is_recorded(tmp_path):
    trainer = fit(tmp_path, *quick(default_callbacks(overhead=None, examples=24, on_error="raise")), max_epochs=4)
    run = run_of(trainer)
    steps = {group: run.dataset(group)["step"].values.tolist() for group in run.groups}
    every = [3, 6, 9, 12]
    assert steps == {
        "compressibility": every,
        "hessian_spectrum": every,
        "mode_connectivity": [12],
        "sharpness": every,
        "swa_trajectory": [12],
    }


def test_common_arguments_reach_all(tmp_path):
    callbacks = default_callbacks(every_n_epochs=3, swa_start=0.5, path=tmp_path / "run.h5", seed=4)
    assert {callback.path for callback in callbacks} == {tmp_path / "run.h5"}
    assert {callback.seed for callback in callbacks} == {4}
    assert [callback.every_n_epochs for callback in callbacks] == [3, 3, 1, 3, None]
    assert len({callback.state_key for callback in callbacks}) == 5


def test_fresh_ones_each_time():
    assert not set(map(id, default_callbacks())) & set(map(id, default_callbacks()))


def test_a_module_with_everything_in_it(tmp_path):
    trainer = make_trainer(tmp_path, quick(default_callbacks(on_error="raise")))
    trainer.fit(BUSY["pytorch_lightning"](), loader(), held_out())
    assert set(run_of(trainer).table()["status"]) == {"ok"}


SCRIPT = """
import torch, pytorch_lightning as pl
from torch.utils.data import DataLoader, TensorDataset
import landscape.callbacks

class Mine(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.layer(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

data = DataLoader(TensorDataset(torch.randn(32, 4), torch.randint(3, (32,))), batch_size=8)
trainer = pl.Trainer(max_epochs=2, callbacks=landscape.callbacks.default_callbacks(curve_steps=50))
trainer.fit(Mine(), data)
print(landscape.open_run(trainer.log_dir + "/landscape.h5").table().to_string())
"""


def test_a_script_as_a_user_writes_it(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT)
    (tmp_path / "callbacks.py").write_text("raise RuntimeError('a module of the user by this name')")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "lambda_max" in done.stdout
    assert " could not " not in done.stderr
    assert landscape.open_run(next(tmp_path.rglob("landscape.h5"))).attributes["model"] == "Mine"


def test_any_plain_module(tmp_path):
    trainer = fit(tmp_path, *quick(default_callbacks()), module=Plain(width=2))
    assert run_of(trainer).attributes["n_parameters"] == 19


def test_an_argument_reaches_the_callback_that_takes_it():
    spectrum, sharpness, _, compressibility, _ = default_callbacks(z=(1.0,), k=3, tolerances=(0.1,), rho_sam=0.2)
    assert (spectrum.z, spectrum.k, sharpness.rho_sam, compressibility.tolerances) == ((1.0,), 3, 0.2, (0.1,))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("overhaed", "default_callbacks has no argument 'overhaed'; did you mean overhead?"),
        ("budget", "overhead="),
        ("start", "default_callbacks has no argument 'start'; did you mean swa_start?"),
        ("steps", "steps is an argument of HessianSpectrum and of Sharpness, with another meaning in each"),
    ],
)
def test_an_argument_that_no_callback_takes_or_several_do(name, words):
    with pytest.raises(TypeError, match=words):
        default_callbacks(**{name: 1})
