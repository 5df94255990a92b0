"""The callbacks in a LightningCLI YAML file, in both namespaces."""

from __future__ import annotations

import lightning.pytorch.cli
import pytest
import pytorch_lightning.cli
import yaml
from landscape_test_trainings import BUSY, NAMESPACES, held_out, loader

from landscape import open_run

CLI = {
    "pytorch_lightning": pytorch_lightning.cli.LightningCLI,
    "lightning.pytorch": lightning.pytorch.cli.LightningCLI,
}
COMMON = {
    "examples": 24,
    "batch_size": 12,
    "path": "runs/cli.h5",
    "on_error": "raise",
    "mode": "eval",
    "weights": "iterate",
    "noise_seed": None,
    "seed": 3,
    "log": True,
    "name": None,
}
OWN = {
    "SWATrajectory": {"start": 0.5, "every_n_epochs": 1},
    "HessianSpectrum": {"k": 2, "k_bottom": 1, "probes": 2, "steps": 5, "max_matvecs": 10, "trace_max_matvecs": 10}
    | {"z": [0.1, 1.0], "engine": "lanczos", "tol": 0.01, "trace_tol": 0.1, "every_n_epochs": 2},
    "Sharpness": {"rho_sam": 0.1, "draws": 4, "steps": 2, "worst_group": 12, "every_n_steps": 2}
    | {"measures": ["sam", {"worst_case": {"rho": 0.1, "norm": "linf"}}, ["average_case", {"rho": [0.1, 0.2]}]]},
    "SharpnessMonitor": {"measures": ["critical_sharpness", "lambda_max"], "max_matvecs": 4, "every_n_steps": 2},
    "Compressibility": {"tolerances": [0.1, 0.3], "family": ["uniform-tensor"], "noise_radius": "tensor"}
    | {"law": True},
    "LearningCoefficient": {"chains": 1, "draws": 8, "gamma": 10.0, "method": "rmsprop", "step_size": 1e-4, "n": 100}
    | {"layers": True, "every_n_epochs": 2},
    "ModeConnectivity": {"since": 1, "points": 3, "curve_steps": 3, "progress": False, "other": None},
}


@pytest.fixture(autouse=True)
def _command_line(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])  # LightningCLI warns of arguments from two sides
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "")  # the command line sets them, and the test puts them back
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of what LightningCLI calls


def data(namespace):
    class Data(NAMESPACES[namespace].LightningDataModule):
        def train_dataloader(self):
            return loader()

        def val_dataloader(self):
            return held_out()

    return Data


def run_cli(tmp_path, namespace, entries, *command, **trainer):
    """Write the YAML file that a user would write, and run the command line on it."""
    settings = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    settings |= {"enable_progress_bar": False, "enable_model_summary": False, "callbacks": entries} | trainer
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"trainer": settings, "seed_everything": 0}))
    return CLI[namespace](
        BUSY[namespace],
        data(namespace),
        args=[*command, "--config", str(config)],
        run=bool(command),
        save_config_callback=None,
    )


@pytest.mark.parametrize("namespace", ["pytorch_lightning", pytest.param("lightning.pytorch", marks=pytest.mark.slow)])
def test_all_of_them_with_all_their_arguments(tmp_path, namespace):
    entries = [{"class_path": f"landscape.callbacks.{name}", "init_args": COMMON | own} for name, own in OWN.items()]
    cli = run_cli(tmp_path, namespace, entries, "fit")
    run = open_run(tmp_path / "runs" / "cli.h5")
    assert len(run.groups) == len(OWN)
    steps = {group: run.dataset(group)["step"].values.tolist() for group in run.groups}
    assert steps["hessian_spectrum"] == [6]
    assert steps["sharpness"] == [2, 4, 6]
    settings = run.dataset("hessian_spectrum").attrs["settings"]
    assert {"k": 2, "seed": 3, "examples": 24}.items() <= settings.items()
    assert run.attributes["seed_everything"] == "0"
    assert cli.trainer.callbacks[0].start == 0.5


@pytest.mark.parametrize("name", OWN)
def test_each_by_itself_takes_the_common_arguments(tmp_path, name):
    common = {key: value for key, value in COMMON.items() if not (name == "SWATrajectory" and key == "weights")}
    cli = run_cli(tmp_path, "pytorch_lightning", [{"class_path": f"landscape.callbacks.{name}", "init_args": common}])
    callback = next(entry for entry in cli.trainer.callbacks if type(entry).__name__ == name)
    assert (callback.measured.examples, callback.seed, callback.path, callback.on_error) == (
        24,
        3,
        "runs/cli.h5",
        "raise",
    )


def test_defaults_without_arguments(tmp_path):
    entries = [{"class_path": f"landscape.callbacks.{name}"} for name in OWN]
    cli = run_cli(tmp_path, "pytorch_lightning", entries)
    assert {name for name in OWN} <= {type(callback).__name__ for callback in cli.trainer.callbacks}


@pytest.mark.parametrize(("key", "value"), [("every_n_epoch", 1), ("examples", "many"), ("every_n_steps", 1.5)])
def test_mistakes_are_refused_by_the_command_line(tmp_path, capsys, key, value):
    entry = {"class_path": "landscape.callbacks.HessianSpectrum", "init_args": {key: value}}
    with pytest.raises(SystemExit) as error:
        run_cli(tmp_path, "pytorch_lightning", [entry])
    assert error.value.code == 2
    assert key in capsys.readouterr().err


def test_the_configuration_is_printed_with_the_common_arguments(tmp_path, capsys):
    entry = {"class_path": "landscape.callbacks.Sharpness"}
    with pytest.raises(SystemExit) as error:
        run_cli(tmp_path, "pytorch_lightning", [entry], "fit", "--print_config")
    assert error.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"][0]["init_args"]
    assert printed["examples"] == 1024
    assert printed["on_error"] == "warn"
    assert printed["rho_average"] == 0.1
