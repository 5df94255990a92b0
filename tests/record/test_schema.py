import re

import numpy as np
import pytest

from landscape.record import COMMON, Coordinate, GroupSchema, Variable


def test_fill_follows_the_dtype():
    assert np.isnan(Variable("x").fill)
    assert Variable("x", dtype="i1").fill == -1
    assert Variable("x", dtype="S4").fill == b""
    assert Variable("x", fill=0.0).fill == 0.0


def test_common_variables_are_those_that_every_row_has():
    names = "step epoch batch_index learning_rate train_loss train_error held_out_loss held_out_error"
    losses = names.split()[4:]
    others = "n_parameters trainable measured_examples wall_seconds overhead reduced left_out status checksum reason"
    assert [variable.name for variable in COMMON] == [
        *names.split(),
        *(f"{name}_stderr_sample" for name in losses),
        *others.split(),
    ]
    assert all(variable.description for variable in COMMON)


@pytest.mark.parametrize("dtype", ["u1", "bool", "c16", "U4", "O", "M8[s]"])
def test_dtypes_that_not_every_reader_has_are_refused(dtype):
    with pytest.raises(ValueError, match=re.escape(f"variable 'x' has dtype {dtype!r}; expected a float")):
        Variable("x", dtype=dtype)


@pytest.mark.parametrize("name", ["", "a/b", "1a", ".", "a b", "é"])
def test_names_are_plain(name):
    for make in (Variable, lambda name: Coordinate(name, [1]), lambda name: GroupSchema(name, "", [])):
        with pytest.raises(ValueError, match="is no name for a"):
            make(name)


@pytest.mark.parametrize("values", [[[1.0]], [1j], [b"a"], 1.5, "text"])
def test_labels_are_a_list_of_numbers_or_strings(values):
    with pytest.raises(ValueError, match="must be one-dimensional numbers or strings, or a length"):
        Coordinate("x", values)


@pytest.mark.parametrize(
    ("a", "b", "agree"),
    [
        (3, 3, True),
        (3, 4, False),
        (3, range(3), False),
        ([1, 2], np.array([1, 2], np.int32), True),
        ([1.0, np.nan], [1.0, np.nan], True),
        ([1.0, 2.0], [1.0, 2.5], False),
        (["a"], ["a"], True),
        (["a"], ["b"], False),
        (["1"], [1], False),
    ],
)
def test_agreement_of_labels(a, b, agree):
    assert Coordinate("x", a).agrees(Coordinate("x", b)) is agree


def test_a_schema_is_checked_as_a_whole():
    with pytest.raises(ValueError, match="declares x twice"):
        GroupSchema("g", "", [Variable("x"), Variable("x")])
    with pytest.raises(ValueError, match="declares x twice"):
        GroupSchema("g", "", [Variable("x")], [Coordinate("x", 2)])
    with pytest.raises(ValueError, match="declares train_loss twice.*these are taken in every group: batch_index"):
        GroupSchema("g", "", [Variable("train_loss")])
    with pytest.raises(ValueError, match="declares step twice"):
        GroupSchema("g", "", [], [Coordinate("step", 2)])
    with pytest.raises(ValueError, match="dimension 'i', for which the group declares no Coordinate"):
        GroupSchema("g", "", [Variable("x", ("i",))])
    with pytest.raises(ValueError, match="attribute name 'variables' is reserved"):
        GroupSchema("g", "", [], attributes={"variables": 1})
