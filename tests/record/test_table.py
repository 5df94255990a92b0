"""Losses of other weights than the training's have columns of their own."""

import numpy as np

from landscape.record import Coordinate, GroupSchema, MemoryRecorder, Variable

LOSSES = {"train_loss": 2.0, "train_error": 0.2, "held_out_loss": 3.0, "held_out_error": 0.3}
HALVED = {name: value / 2 for name, value in LOSSES.items()}


def _recorder(*weights: str) -> MemoryRecorder:
    recorder = MemoryRecorder({})
    for index, name in enumerate(weights):
        own = Variable(f"measure_{index}")
        recorder.declare(GroupSchema(f"group_{index}", "a measure", [own], attributes={"weights": name}))
    return recorder


def test_losses_of_the_average_do_not_mix_with_those_of_the_iterate() -> None:
    recorder = _recorder("swa", "iterate")
    recorder.append("group_0", {"step": 4, "measure_0": 1.0, **HALVED})
    recorder.append("group_1", {"step": 4, "measure_1": 5.0, **LOSSES})
    recorder.append("group_1", {"step": 8, "measure_1": 6.0, **LOSSES})
    table = recorder.run().table()
    for name, value in LOSSES.items():
        assert table[name].tolist() == [value, value]
        assert table[f"swa_{name}"].tolist()[0] == value / 2
        assert np.isnan(table[f"swa_{name}"].tolist()[1])
    assert table["measure_0"].tolist()[0] == 1.0
    assert table["measure_1"].tolist() == [5.0, 6.0]


def test_a_run_of_the_average_alone_says_so() -> None:
    recorder = _recorder("swa")
    recorder.append("group_0", {"step": 4, "measure_0": 1.0, **HALVED})
    table = recorder.run().table()
    assert table["train_loss"].isna().all()
    assert table["swa_train_loss"].tolist() == [1.0]
    assert table["epoch"].tolist() == [-1]


def test_a_measured_column_of_the_same_name_comes_first() -> None:
    recorder = _recorder("swa")
    recorder.declare(GroupSchema("trajectory", "weights", [Variable("swa_train_loss")]))
    recorder.append("group_0", {"step": 4, "measure_0": 1.0, **HALVED})
    recorder.append("trajectory", {"step": 4, "swa_train_loss": 0.9, **LOSSES})
    table = recorder.run().table()
    assert table["swa_train_loss"].tolist() == [0.9]
    assert table["swa_train_error"].tolist() == [0.1]
    assert table.columns.is_unique


def test_columns_of_a_variable_along_names_and_numbers() -> None:
    recorder = MemoryRecorder({})
    along = [Coordinate("family", ["grid", "codebook"]), Coordinate("tolerance", [0.1, 0.3])]
    variables = [Variable("bits", ("family", "tolerance")), Variable("other_way", ("tolerance", "family"))]
    recorder.declare(GroupSchema("compressibility", "bits", variables, along))
    recorder.append("compressibility", {"step": 1, "bits": [[1.0, 2.0], [3.0, 4.0]], "other_way": np.zeros((2, 2))})
    table = recorder.run().table()
    columns = ["grid,tolerance=0.1", "grid,tolerance=0.3", "codebook,tolerance=0.1", "codebook,tolerance=0.3"]
    assert table[[f"bits[{column}]" for column in columns]].to_numpy().tolist() == [[1.0, 2.0, 3.0, 4.0]]
    assert not [column for column in table if column.startswith("other_way")]


def test_the_worst_status_of_all_groups_stands_in_the_table() -> None:
    recorder = _recorder("iterate", "iterate")
    for step, (one, other) in enumerate([("ok", "partial"), ("surrogate", "partial"), ("failed", "surrogate")]):
        recorder.append("group_0", {"step": step, "status": one, "reason": "this"})
        recorder.append("group_1", {"step": step, "status": other, "reason": "that"})
    table = recorder.run().table()
    assert table["status"].tolist() == ["partial", "surrogate", "failed"]
    assert set(table["reason"]) == {"this; that"}
    assert recorder.run().dataset("group_0")["status"].values.tolist() == ["ok", "surrogate", "failed"]
