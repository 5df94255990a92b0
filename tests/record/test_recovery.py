import h5py
import numpy as np

from landscape.record import Coordinate, GroupSchema, Recorder, Variable, open_run
from landscape.record._recovery import complete_steps, drop_rows_after, event_variables, has_rows_after


def test_a_row_is_complete_when_its_step_stands(file_recorder):
    file_recorder.declare(GroupSchema("g", "", [Variable("x")]))
    for step in (0, 3, 7):
        file_recorder.append("g", {"step": step, "x": step})
    with h5py.File(file_recorder.path, "r+") as file:
        group = file["g"]
        assert complete_steps(group).tolist() == [0, 3, 7]
        assert not has_rows_after(file, 7)
        assert has_rows_after(file, 6)
        group["step"].resize(4, axis=0)
        assert complete_steps(group).tolist() == [0, 3, 7]
        assert has_rows_after(file, 7)
        group["step"].resize(3, axis=0)
        group["x"].resize(4, axis=0)
        assert has_rows_after(file, 7)
        drop_rows_after(file, 5)
        assert group["step"][:].tolist() == [0, 3]
        assert {len(group[name]) for name in event_variables(group)} == {2}
        drop_rows_after(file, -1)
        assert complete_steps(group).tolist() == []


def test_resume_without_anything_to_drop_leaves_the_file_alone(file_recorder):
    file_recorder.declare(GroupSchema("g", "", [Variable("x")]))
    file_recorder.append("g", {"step": 3, "x": 1})
    inode = file_recorder.path.stat().st_ino
    Recorder.resume(file_recorder.path, file_recorder.run_id, 3)
    assert file_recorder.path.stat().st_ino == inode


def test_large_rows_are_dropped_and_written_anew(file_recorder):
    schema = GroupSchema("g", "", [Variable("w", ("i",))], [Coordinate("i", 3000)])
    file_recorder.declare(schema)
    for step in range(150):
        file_recorder.append("g", {"step": step, "w": np.full(3000, step)})
    resumed = Recorder.resume(file_recorder.path, file_recorder.run_id, 69)
    for step in range(70, 80):
        resumed.append("g", {"step": step, "w": np.full(3000, -step)})
    data = open_run(resumed.path).dataset("g")
    assert data["step"].values.tolist() == list(range(80))
    np.testing.assert_array_equal(data["w"][:, 7], [*range(70), *(-step for step in range(70, 80))])
