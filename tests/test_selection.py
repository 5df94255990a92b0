from __future__ import annotations

import pytest

from landscape._layout import ParameterLayout
from landscape._selection import as_patterns, modules, select, sublayout

NAMES = (
    "encoder.0.weight",
    "encoder.0.bias",
    "encoder.1.weight",
    "head.lora_A.default.weight",
    "head.lora_B.default.weight",
    "head.base.weight",
    "loramap.weight",
)
LAYOUT = ParameterLayout(NAMES, ((2, 2), (2,), (3,), (1, 2), (2, 1), (4,), (5,)))


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("encoder", (0, 1, 2)),
        ("encoder.0", (0, 1)),
        ("encoder.*", (0, 1, 2)),
        ("*.bias", (1,)),
        (["head.base.weight", "encoder.1"], (2, 5)),
        ("lora", (3, 4)),
        (["lora", "*.bias"], (1, 3, 4)),
    ],
)
def test_names_modules_and_patterns_stand_for_tensors(patterns, expected):
    assert select(LAYOUT, patterns) == expected
    assert sublayout(LAYOUT, expected).names == tuple(NAMES[i] for i in expected)


def test_a_module_called_lora_is_found_too():
    layout = ParameterLayout(("lora.weight", "net.lora_A.weight", "lorax"), ((1,), (1,), (1,)))
    assert select(layout, "lora") == (0, 1)


def test_compiled_modules_go_by_their_plain_names():
    layout = ParameterLayout(("net._orig_mod.lora_A.weight", "net._orig_mod.head.weight"), ((1,), (1,)))
    assert select(layout, "lora") == (0,)
    assert select(layout, "net.head") == (1,)


def test_a_pattern_without_match_is_refused_with_near_names():
    names = tuple(f"transformer.h.{index}.attn.weight" for index in range(20))
    layout = ParameterLayout(names, ((1,),) * 20)
    with pytest.raises(ValueError, match=r"'transformer.h.33' matches no trainable parameter; did you mean .*h\.3"):
        select(layout, "transformer.h.33")
    with pytest.raises(ValueError, match=r"'zzz' matches no trainable parameter; there are .* and 8 more"):
        select(layout, "zzz")
    with pytest.raises(ValueError, match=r"'lora' matches no trainable parameter"):
        select(layout, "lora")
    with pytest.raises(ValueError, match=r"there are encoder.0.weight, .*\(a tied tensor goes by its first name\)"):
        select(LAYOUT, "decoder")


def test_what_is_no_list_of_names_is_refused():
    assert as_patterns(None) is None
    assert as_patterns("encoder") == ("encoder",)
    assert as_patterns(["a", "b"]) == ("a", "b")
    for wrong in ([], 3, [3], ["a", ""], ""):
        with pytest.raises(ValueError, match="parameters"):
            as_patterns(wrong)


def test_tensors_are_grouped_by_the_module_that_holds_them():
    assert modules(LAYOUT)["encoder.0"] == (0, 1)
