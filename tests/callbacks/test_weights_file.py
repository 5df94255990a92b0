"""Weights of another training, from whatever file holds them."""

from __future__ import annotations

import pickle

import pytest
import torch
from landscape_test_trainings import Plain, fit, flat, run_of

from landscape import FileError, MeasurementError
from landscape._layout import ParameterLayout
from landscape.callbacks import Sharpness, SWATrajectory
from landscape.callbacks._weights_file import load_weights

LAYOUT = ParameterLayout.of(list(Plain().named_parameters()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("trained"), SWATrajectory())


def test_a_run_file(trained):
    assert load_weights(run_of(trained).path, LAYOUT).numpy().tolist() == flat(trained.lightning_module).tolist()


@pytest.mark.parametrize("name", ["last.ckpt", "model.pt"])
def test_a_checkpoint(trained, tmp_path, name):
    if name == "last.ckpt":
        trained.save_checkpoint(tmp_path / name)
    else:
        torch.save(trained.lightning_module.state_dict(), tmp_path / name)
    assert load_weights(str(tmp_path / name), LAYOUT).numpy().tolist() == flat(trained.lightning_module).tolist()


def test_float64_weights(tmp_path):
    torch.save(Plain().double().state_dict(), tmp_path / "model.pt")
    assert load_weights(tmp_path / "model.pt", LAYOUT).dtype == torch.float64


def test_a_run_without_weights(tmp_path):
    trainer = fit(tmp_path, Sharpness(draws=2, steps=1))
    with pytest.raises(FileError, match="weights"):
        load_weights(run_of(trainer).path, LAYOUT)


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04 broken"])
def test_damaged(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(FileError, match=r"model.pt cannot be read as a checkpoint"):
        load_weights(tmp_path / "model.pt", LAYOUT)


def test_missing(tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        load_weights(tmp_path / "model.pt", LAYOUT)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:TypedStorage")
def test_a_distributed_checkpoint_is_read_once_it_is_one_file(trained, tmp_path):
    import torch.distributed.checkpoint as distributed
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    folder, file = tmp_path / "sharded.ckpt", tmp_path / "full.pt"
    state = {"state_dict": trained.lightning_module.state_dict()}
    distributed.save(state, storage_writer=distributed.FileSystemWriter(folder), no_dist=True)
    with pytest.raises(FileError, match=r"sharded.ckpt is a folder; .* dcp_to_torch"):
        load_weights(folder, LAYOUT)
    dcp_to_torch_save(folder, file)
    assert load_weights(file, LAYOUT).numpy().tolist() == flat(trained.lightning_module).tolist()


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {"state_dict": torch.zeros(3)}])
def test_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(FileError, match=r"holds no state dict"):
        load_weights(tmp_path / "model.pt", LAYOUT)


def test_another_architecture(tmp_path):
    torch.save(Plain(width=3).state_dict(), tmp_path / "narrow.pt")
    with pytest.raises(MeasurementError, match=r"'net.0.weight' with shape \(3, 4\), this training has \(8, 4\)"):
        load_weights(tmp_path / "narrow.pt", LAYOUT)
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pt")
    with pytest.raises(MeasurementError, match="holds no tensor 'net.0.weight'"):
        load_weights(tmp_path / "linear.pt", LAYOUT)


def test_frozen_parameters_must_be_equal(tmp_path):
    module = Plain()
    name, frozen = next(module.named_parameters())
    frozen.requires_grad_(False)
    layout = ParameterLayout.of([pair for pair in module.named_parameters() if pair[1].requires_grad])
    torch.save(module.state_dict(), tmp_path / "same.pt")
    assert load_weights(tmp_path / "same.pt", layout, module).shape == (layout.total,)
    torch.save(module.state_dict() | {name: frozen + 1}, tmp_path / "moved.pt")
    with pytest.raises(MeasurementError, match=f"holds other values of '{name}' than this training"):
        load_weights(tmp_path / "moved.pt", layout, module)


class Executed:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [pickle.dumps(Executed()), pickle.dumps({"a": 1}, protocol=0), b"", b"nothing"])
def test_the_refusal_does_not_advise_to_run_the_file(tmp_path, capsys, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(FileError, match=r"damaged, or holds more than tensors") as caught:
        load_weights(tmp_path / "model.pt", LAYOUT)
    assert "weights_only" not in str(caught.value)
    assert capsys.readouterr().out == ""
