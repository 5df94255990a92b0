"""The README's code runs as it stands there."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def _block(start: str) -> str:
    (found,) = [block for block in BLOCKS if start in block]
    return found


@pytest.fixture
def module_and_data():
    import pytorch_lightning as pl

    class MyModule(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))

        def training_step(self, batch, batch_idx):
            x, y = batch
            return nn.functional.cross_entropy(self.net(x), y)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class MyData(pl.LightningDataModule):
        def train_dataloader(self):
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(64, 4, generator=generator)
            return DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=16)

    return MyModule, MyData


def test_drop_in_snippet_records_a_run(module_and_data, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    my_module, my_data = module_and_data
    snippet = _block("default_callbacks()").replace("max_epochs=30", "max_epochs=2")
    snippet = snippet.replace("default_callbacks()", "default_callbacks(curve_steps=20)")
    exec(snippet, {"MyModule": my_module, "MyData": my_data})
    (path,) = tmp_path.rglob("landscape.h5")

    from landscape import open_run

    table = open_run(path).table()
    assert (table["status"] == "ok").all(), table["reason"].tolist()
    assert table["lambda_max"].notna().all()

    reading = _block('open_run("lightning_logs').replace("lightning_logs/version_0/landscape.h5", str(path))
    exec(reading, {"model": my_module()})
    plain = _block("import h5py").replace("landscape.h5", str(path))
    exec(plain, {})


def test_functions_without_callbacks() -> None:
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)) for _ in range(2)]
    x = torch.randn(32, 4)
    names = {"model": models[0], "other": models[1], "loss_fn": nn.CrossEntropyLoss()}
    snippet = _block("objective = Objective(").replace("H, k=10", "H, k=5").replace('"lora"', '"0"')
    exec(snippet, names | {"batches": [(x, x[:, :3].argmax(1))]})


def test_callbacks_of_the_list_are_made_as_written() -> None:
    names: dict = {}
    exec(_block("HessianSpectrum(k=10"), names)
    assert [type(callback).__name__ for callback in names["callbacks"]] == [
        "HessianSpectrum",
        "Sharpness",
        "SWATrajectory",
        "Compressibility",
        "ModeConnectivity",
    ]
    assert sys.modules["landscape.callbacks"]


@pytest.mark.filterwarnings("ignore:.*has 1 batches")
def test_averages_and_surfaces_of_a_recorded_run(module_and_data, tmp_path, monkeypatch) -> None:
    import pytorch_lightning as pl

    from landscape import Objective, open_run
    from landscape.callbacks import SWATrajectory

    monkeypatch.chdir(tmp_path)
    my_module, my_data = module_and_data
    module = my_module()
    callback = SWATrajectory(every_n_steps=2, path=tmp_path / "landscape.h5")
    pl.Trainer(max_epochs=20, callbacks=[callback], logger=False, enable_checkpointing=False).fit(module, my_data())
    x = torch.randn(32, 4)
    objective = Objective(module.net, nn.CrossEntropyLoss(), [(x, x[:, :3].argmax(1))])
    objective = Objective.from_lightning(module, objective.batches)
    names = {"open_run": open_run, "objective": objective, "held_out": objective}
    exec(_block("posterior = swag").replace("start=100", "start=20"), names)
    assert names["surface"].loss.shape == (11, 11)
    assert names["posterior"].n > 2


def test_a_certificate_is_made_and_verified(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    class MyNet(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3))

    x = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
    snippet = _block("train_subspace(MyNet").replace("epochs=60", "epochs=5")
    names = {"MyNet": MyNet, "batches": [(x, x[:, :3].argmax(1))]}
    exec(snippet, names)
    assert names["verify"]("model.lsc", MyNet, names["batches"]).valid
    assert names["certificate"].n == 500
