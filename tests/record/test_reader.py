import contextlib
import subprocess
import sys

import h5py
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from landscape import FileError
from landscape.record import Coordinate, GroupSchema, MemoryRecorder, Recorder, Variable, open_run
from landscape.record import _opening as opening
from landscape.record._locks import locked


def test_reading_loads_neither_torch_nor_lightning(tmp_path):
    path = Recorder.create(tmp_path / "landscape.h5", {}).path
    code = (
        "import sys, landscape; run = landscape.open_run(sys.argv[1]); run.table(); "
        "assert not {'torch', 'pytorch_lightning', 'lightning', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)


def test_importing_the_package_loads_no_hdf5():
    code = "import sys, landscape.record; assert not {'h5py', 'xarray', 'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_run_shows_its_provenance(file_recorder, scalars, layout):
    file_recorder.declare(scalars)
    run = open_run(str(file_recorder.path))
    assert run.path == file_recorder.path
    assert run.groups == ["sharpness"]
    assert run.layout == layout
    assert run.attributes["model"] == "Net"
    assert run.attributes["run_id"] == file_recorder.run_id
    assert repr(run) == f"Run('{file_recorder.path}', groups=['sharpness'])"


def test_run_follows_a_live_file(file_recorder, scalars):
    run = open_run(file_recorder.path)
    assert run.table().empty
    file_recorder.declare(scalars)
    file_recorder.append("sharpness", {"step": 1})
    assert run.dataset("sharpness").sizes["step"] == 1
    file_recorder.append("sharpness", {"step": 2})
    assert run.dataset("sharpness").sizes["step"] == 2


def test_a_reader_waits_for_the_moment_that_a_writer_takes(file_recorder, monkeypatch):
    run = open_run(file_recorder.path)
    with contextlib.ExitStack() as held:
        held.enter_context(locked(file_recorder.path, shared=False))
        monkeypatch.setattr(opening.time, "sleep", lambda _: held.close())
        assert run.groups == []
    with locked(file_recorder.path, shared=False):
        monkeypatch.setattr(opening.time, "monotonic", iter([0.0, 1.0, 3.0]).__next__)
        monkeypatch.setattr(opening.time, "sleep", lambda _: None)
        with pytest.raises(FileError, match="is held by a program that writes it"):
            run.groups  # noqa: B018


def test_incomplete_last_row_is_cut_off(file_recorder, scalars):
    file_recorder.declare(scalars)
    for step in (1, 2):
        file_recorder.append("sharpness", {"step": step, "sam": step})
    with h5py.File(file_recorder.path, "r+") as file:
        file["sharpness/sam"].resize(3, axis=0)
        file["sharpness/sam"][2] = 7.0
        file["sharpness/bits"].resize(3, axis=0)
        file["sharpness/step"].resize(3, axis=0)
    assert open_run(file_recorder.path).dataset("sharpness")["sam"].values.tolist() == [1.0, 2.0]
    assert len(open_run(file_recorder.path).table()) == 2
    assert file_recorder.append("sharpness", {"step": 3})
    np.testing.assert_array_equal(open_run(file_recorder.path).dataset("sharpness")["sam"], [1.0, 2.0, np.nan])


# The table


@pytest.fixture
def two_groups(recorder, scalars):
    recorder.declare(scalars)
    recorder.declare(
        GroupSchema(
            "hessian_spectrum",
            "",
            [
                Variable("trace"),
                Variable("n_matvecs", dtype="i8"),
                Variable("sam"),
                Variable("kind", dtype="S8"),
                Variable("n_eff", ("z",)),
                Variable("profile", ("t",)),
                Variable("curve", ("path", "t")),
                Variable("wide", ("many",)),
                Variable("cube", ("path", "path2", "end")),
                Variable("by_end", ("end",)),
                Variable("unlabelled", ("node",)),
                Variable("vector", ("plain",)),
            ],
            [
                Coordinate("z", [0.1, 1.0, 1e-7]),
                Coordinate("t", [0.0, 0.5, 1.0]),
                Coordinate("path", ["linear", "bezier"]),
                Coordinate("path2", ["a"]),
                Coordinate("end", ["top", "bottom"]),
                Coordinate("many", np.linspace(0, 1, 17)),
                Coordinate("node", range(2)),
                Coordinate("plain", 2),
            ],
        )
    )
    return recorder


def test_table_joins_the_groups_on_the_step(two_groups, read):
    two_groups.append("sharpness", {"step": 1, "train_loss": 0.5, "wall_seconds": 1.0, "sam": 2.0, "n_probes": 3})
    two_groups.append("sharpness", {"step": 3, "status": 1, "reason": "NaN loss", "epoch": 2, "wall_seconds": 0.5})
    spectrum = {"wall_seconds": 2.0, "trace": 9.0, "kind": "ggn", "n_eff": [1.0, 2.0, 3.0]}
    two_groups.append("hessian_spectrum", {"step": 2, "train_loss": 0.25, **spectrum})
    two_groups.append("hessian_spectrum", {"step": 3, "train_loss": 0.125, "status": 1, "reason": "k > P", "sam": 5.0})
    table = read(two_groups).table()
    common = "step epoch batch_index learning_rate train_loss train_error held_out_loss held_out_error"
    spectrum = ["trace", "n_matvecs", "hessian_spectrum/sam", "kind"]
    bits = ["bits[tolerance=0.003]", "bits[tolerance=0.01]"]
    pairs = [f"barrier[{path},{kind}]" for path in ("linear", "bezier") for kind in ("interpolated", "worse_end")]
    assert list(table.columns) == [
        *common.split(),
        *(f"{name}_stderr_sample" for name in common.split()[4:8]),
        "n_parameters",
        "trainable",
        "measured_examples",
        "wall_seconds",
        "overhead",
        "reduced",
        "left_out",
        "status",
        "reason",
        *spectrum,
        *(f"n_eff[z={z}]" for z in ("0.1", "1", "1e-07")),
        *(f"by_end[end={end}]" for end in ("top", "bottom")),
        "sharpness/sam",
        "n_probes",
        *bits,
        *pairs,
    ]
    assert table["step"].tolist() == [1, 2, 3]
    assert table["epoch"].tolist() == [-1, -1, 2]
    assert table["train_loss"].tolist() == [0.5, 0.25, 0.125]
    assert table["wall_seconds"].tolist() == [1.0, 2.0, 0.5]
    assert table["status"].tolist() == ["ok", "ok", "failed"]
    assert table["reason"].tolist() == ["", "", "k > P; NaN loss"]
    assert table["n_probes"].tolist() == [3, -1, -1]
    assert table["kind"].tolist() == ["", "ggn", ""]
    np.testing.assert_array_equal(table["n_eff[z=1]"], [np.nan, 2.0, np.nan])
    np.testing.assert_array_equal(table["sharpness/sam"], [2.0, np.nan, np.nan])
    np.testing.assert_array_equal(table["hessian_spectrum/sam"], [np.nan, np.nan, 5.0])


def test_table_sums_the_time_and_keeps_unknown_time_unknown(two_groups, read):
    two_groups.append("sharpness", {"step": 1, "wall_seconds": 1.0})
    two_groups.append("hessian_spectrum", {"step": 1, "wall_seconds": 2.0})
    two_groups.append("hessian_spectrum", {"step": 2})
    np.testing.assert_array_equal(read(two_groups).table()["wall_seconds"], [3.0, np.nan])


def test_table_of_a_run_without_rows(recorder, scalars, read):
    assert list(read(recorder).table().columns) == ["step"]
    recorder.declare(scalars)
    assert len(read(recorder).table()) == 0


# Weights


@pytest.fixture
def recorded(recorder, trajectory, weights_at):
    recorder.declare(trajectory())
    recorder.write_static("swa_trajectory", "constants", [0.5, 1.5], ("constant",))
    for step in (10, 20, 40):
        buffers = {"buffers": [step, step + 0.5, step], "swa_buffers": [-step, 0.25, 7]}
        recorder.append("swa_trajectory", {"step": step, "weights": weights_at(step), **buffers})
    return recorder


def test_weights_at_a_step(recorded, read, weights_at):
    run = read(recorded)
    np.testing.assert_array_equal(run.weights(), weights_at(40))
    np.testing.assert_array_equal(run.weights(20), weights_at(20))
    assert run.weights().dtype == np.float32
    with pytest.raises(FileError, match="has no weights at step 30; they were recorded at steps 10, 20, 40"):
        run.weights(30)


def test_state_dict_has_names_shapes_and_dtypes(recorded, read, weights_at):
    import torch

    state = read(recorded).state_dict(20)
    expected = {
        "layer.weight": torch.from_numpy(weights_at(20)[:6]).reshape(2, 3),
        "layer.bias": torch.from_numpy(weights_at(20)[6:8]),
        "scale": torch.tensor(weights_at(20)[8]),
        "norm.mean": torch.tensor([20.0, 20.5]),
        "norm.count": torch.tensor(20),
        "frozen": torch.tensor([[0.5], [1.5]], dtype=torch.float16),
    }
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype, name
        assert torch.equal(state[name], tensor), name


def test_average_is_the_mean_of_the_rows_up_to_the_step(recorded, read, weights_at):
    run = read(recorded)
    for step, start, steps in [(None, None, (10, 20, 40)), (20, None, (10, 20)), (40, 15, (20, 40)), (40, 40, (40,))]:
        state = run.state_dict(step, average="swa", start=start)
        mean = np.mean([weights_at(each).astype(np.float64) for each in steps], axis=0)
        np.testing.assert_array_equal(state["layer.weight"].numpy(), mean[:6].reshape(2, 3).astype(np.float32))
        last = steps[-1]
        assert state["norm.mean"].tolist() == [-last, 0.25]
        assert state["norm.count"].item() == 7
    with pytest.raises(FileError, match="no weights to average from step 41 to step 40"):
        run.state_dict(40, average="swa", start=41)
    with pytest.raises(ValueError, match="average is 'ema'; expected None"):
        run.state_dict(average="ema")
    with pytest.raises(ValueError, match="give average='swa' with it"):
        run.state_dict(start=10)


def test_mean_of_float32_weights_is_taken_in_float64(recorder, trajectory, read, layout):
    recorder.declare(trajectory(parameter_dtypes=["torch.float64"] * 3))
    values = np.array([1.0, 1.0 + 2.0**-23, 1.0], dtype=np.float32)
    for step, value in enumerate(values):
        row = {"weights": np.full(layout.total, value), "buffers": np.zeros(3), "swa_buffers": np.zeros(3)}
        recorder.append("swa_trajectory", {"step": step, **row})
    recorder.write_static("swa_trajectory", "constants", [0.5, 1.5], ("constant",))
    scale = read(recorder).state_dict(average="swa")["scale"].item()
    assert scale == pytest.approx(1.0 + 2.0**-23 / 3, abs=1e-16)


def test_failed_rows_are_neither_averaged_nor_the_last(recorded, read, weights_at):
    recorded.append("swa_trajectory", {"step": 50, "status": 1, "reason": "no"})
    run = read(recorded)
    np.testing.assert_array_equal(run.weights(), weights_at(40))
    with pytest.raises(FileError, match=r"no weights at step 50 \(the measurement at that step failed\)"):
        run.weights(50)
    buffers = {"buffers": [0, 0, 0], "swa_buffers": [1, 1, 1]}
    recorded.append("swa_trajectory", {"step": 60, "weights": weights_at(60), **buffers})
    mean = np.mean([weights_at(step).astype(np.float64) for step in (10, 20, 40, 60)], axis=0)
    assert read(recorded).state_dict(average="swa")["scale"].item() == np.float32(mean[8])


def test_weights_that_diverged_stay_nan(recorder, trajectory, read, layout):
    recorder.declare(trajectory())
    recorder.write_static("swa_trajectory", "constants", [0.5, 1.5], ("constant",))
    row = {"weights": np.full(layout.total, np.nan)}
    recorder.append("swa_trajectory", {"step": 1, **row})
    assert np.isnan(read(recorder).weights()).all()
    assert read(recorder).state_dict(1)["scale"].isnan()


def test_average_without_recomputed_buffers_is_refused(recorded, read, weights_at):
    recorded.append("swa_trajectory", {"step": 50, "weights": weights_at(50), "buffers": [0, 0, 0]})
    assert read(recorded).state_dict(50)["norm.count"] == 0
    with pytest.raises(FileError, match="has no swa_buffers at step 50; choose another step"):
        read(recorded).state_dict(50, average="swa")


def test_tied_tensors_get_all_their_names(recorder, trajectory, read, weights_at):
    recorder.declare(trajectory(aliases={"head.bias": "layer.bias"}))
    recorder.write_static("swa_trajectory", "constants", [0.5, 1.5], ("constant",))
    recorder.append("swa_trajectory", {"step": 1, "weights": weights_at(1), "buffers": [0, 0, 0]})
    state = read(recorder).state_dict()
    assert state["head.bias"] is state["layer.bias"]


def test_runs_without_weights(recorder, scalars, trajectory, read):
    recorder.declare(scalars)
    with pytest.raises(FileError, match="holds no weights: it has no group 'swa_trajectory'"):
        read(recorder).weights()
    recorder.declare(trajectory())
    with pytest.raises(FileError, match="has no row that succeeded"):
        read(recorder).state_dict()
    unnamed = MemoryRecorder({})
    unnamed.declare(trajectory())
    unnamed.append("swa_trajectory", {"step": 1, "weights": np.zeros(9), "buffers": [0, 0, 0]})
    with pytest.raises(FileError, match="has no group 'parameters'"):
        unnamed.run().state_dict()
    assert unnamed.run().weights().shape == (9,)


def test_state_dict_loads_into_the_model(tmp_path):
    import torch

    from landscape._layout import ParameterLayout

    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    layout = ParameterLayout.of(list(model.named_parameters()))
    names = [name for name, _ in model.named_buffers()]
    buffers = [buffer for _, buffer in model.named_buffers()]
    flat = torch.cat([buffer.double().reshape(-1) for buffer in buffers]).numpy()
    recorder = Recorder.create(tmp_path / "landscape.h5", {}, layout)
    settings = {
        "buffer_names": names,
        "buffer_shapes": [list(buffer.shape) for buffer in buffers],
        "buffer_dtypes": [str(buffer.dtype) for buffer in buffers],
    }
    variables = [Variable("weights", ("parameter",), "f4"), Variable("buffers", ("buffer",))]
    sizes = [Coordinate("parameter", layout.total), Coordinate("buffer", len(flat))]
    recorder.declare(GroupSchema("swa_trajectory", "", variables, sizes, settings))
    vector = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
    recorder.append("swa_trajectory", {"step": 1, "weights": vector, "buffers": flat})
    other = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    other.load_state_dict(open_run(recorder.path).state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


# What is written is what is read


numbers = st.floats(width=64)
rows = st.lists(
    st.tuples(
        st.integers(1, 1000),
        numbers,
        st.integers(-(2**63), 2**63 - 1),
        st.lists(numbers, min_size=3, max_size=3),
        st.text(max_size=40),
        st.sampled_from(["first", "second"]),
    ),
    max_size=12,
)


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(rows=rows)
def test_any_sequence_of_rows_reads_back(tmp_path_factory, rows):
    file = Recorder.create(tmp_path_factory.mktemp("run") / "landscape.h5", {})
    variables = [Variable("x"), Variable("n", dtype="i8"), Variable("v", ("i",)), Variable("text", dtype="S200")]
    expected = {"first": [], "second": []}
    for name in expected:
        file.declare(GroupSchema(name, "", variables, [Coordinate("i", 3)]))
    step = 0
    for increase, x, n, v, text, group in rows:
        step += increase
        text = text.rstrip("\0")
        assert file.append(group, {"step": step, "x": x, "n": n, "v": v, "text": text})
        expected[group].append((step, x, n, v, text.replace("\0", " ")))
    for name, wanted in expected.items():
        data = open_run(file.path).dataset(name)
        assert data["step"].values.tolist() == [row[0] for row in wanted]
        np.testing.assert_array_equal(data["x"], np.array([row[1] for row in wanted]))
        assert data["n"].values.tolist() == [row[2] for row in wanted]
        np.testing.assert_array_equal(data["v"], np.array([row[3] for row in wanted]).reshape(len(wanted), 3))
        assert data["text"].values.tolist() == [row[4] for row in wanted]
