"""The parts of bounds: bars that add up to the bound, and lines where it says nothing."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from landscape import FileError
from landscape.analysis import _decomposition, plot_bound_decomposition
from landscape.bounds import countable_bound

PARTS = ("error on the examples", "confidence, ln 1/δ", "bits of the code", "bits charged for choices")


def certificate(error: float = 0.11, payload: float = 364, charges: float = 6.0, **other: Any) -> dict[str, Any]:
    setting: dict[str, Any] = {"n": 1437, "delta": 0.05, "method": "kl"} | {
        name: other.pop(name) for name in ("n", "delta", "method") if name in other
    }
    bits = payload + charges
    bound = countable_bound(error=error, bits=bits, **setting)
    parts = {"bits": bits, "payload_bits": payload, "charge_bits": charges}
    return {"error": error, "bound": bound, **parts, **setting, **other}


def bars(ax: Any) -> dict[str, list[tuple[float, float]]]:
    """Start and width of the bars by part, from the first certificate on."""
    return {
        container.get_label(): [(patch.get_x(), patch.get_width()) for patch in container]
        for container in ax.containers
    }


def caption(ax: Any) -> str:
    return ax.get_title(loc="left").replace("\n", " ")


def test_the_parts_of_hoeffdings_bound_have_closed_forms() -> None:
    one = certificate(method="hoeffding")
    found = bars(plot_bound_decomposition(one))

    def after(bits: float) -> float:
        return 0.11 + math.sqrt((bits * math.log(2) + math.log(1 / 0.05)) / (2 * 1437))

    ends = [0.11, after(0), after(364), after(370)]
    assert [found[part][0][0] for part in PARTS] == pytest.approx([0.0, *ends[:-1]], abs=1e-12)
    assert [found[part][0][1] for part in PARTS] == pytest.approx(
        [0.11, *(b - a for a, b in zip(ends, ends[1:], strict=False))], abs=1e-9
    )


@pytest.mark.parametrize("method", ["hoeffding", "kl", "exact", "catoni"])
def test_bars_end_at_the_bound(method: str) -> None:
    several = [certificate(error=wrong / 1000, n=1000, method=method, label=str(wrong)) for wrong in (0, 100, 600)]
    ax = plot_bound_decomposition(several)
    found = bars(ax)
    for index, one in enumerate(several):
        widths = [found[part][index][1] for part in PARTS if part in found]
        assert sum(widths) == pytest.approx(one["bound"], abs=1e-9)
        assert min(widths) >= -1e-12
    ticks = dict(zip(ax.get_yticks(), (text.get_text() for text in ax.get_yticklabels()), strict=True))
    assert [ticks[place] for place in (2, 1, 0)] == ["0", "100", "600"]
    heights = [patch.get_y() + patch.get_height() / 2 for patch in ax.containers[-1]]
    assert heights == pytest.approx([2, 1, 0])


def test_lines_where_a_bound_says_nothing() -> None:
    rows = [certificate(classes=10), certificate(error=0.65, payload=700, classes=10)]
    ax = plot_bound_decomposition(rows)
    names = {line.get_label(): line.get_xdata()[0] for line in ax.lines}
    assert names == {"vacuous: 1": 1, "guessing among 10 classes: 0.9": pytest.approx(0.9)}
    first, second = (text.get_text() for text in ax.texts)
    assert (first, second) == (f"{rows[0]['bound']:.3f}, 370 bits", f"{rows[1]['bound']:.3f}, 706 bits\nvacuous")
    assert 0.9 < rows[1]["bound"] < 1
    (text,) = (text.get_text() for text in plot_bound_decomposition(certificate(error=0.65, payload=700)).texts)
    assert "vacuous" not in text  # without a number of classes only 1 says nothing
    assert "guessing among 4 classes: 0.75" in [
        line.get_label() for line in plot_bound_decomposition(certificate(), classes=4).lines
    ]


def test_what_is_said() -> None:
    ax = plot_bound_decomposition([certificate(label="one"), certificate(label="two")])
    assert caption(ax).startswith("Bounds on the decoded networks' error (kl, n = 1,437, δ = 0.05). Parts are added")
    assert "Each holds by itself with probability 1 − δ" in caption(ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [*PARTS, "vacuous: 1"]
    unlike = plot_bound_decomposition([certificate(label="one"), certificate(label="two", method="exact", error=0.0)])
    assert [text.get_text() for text in unlike.get_yticklabels()] == [
        "one\n(kl, n = 1,437, δ = 0.05)",
        "two\n(exact, n = 1,437, δ = 0.05)",
    ]


def test_without_charges_all_bits_are_the_codes() -> None:
    row = certificate(charges=0.0)
    for name in ("payload_bits", "charge_bits"):
        del row[name]
    found = bars(plot_bound_decomposition(row))
    assert list(found) == list(PARTS[:3])
    row = certificate()
    del row["payload_bits"]
    assert bars(plot_bound_decomposition(row)) == bars(plot_bound_decomposition(certificate()))


def test_objects_have_the_same_fields() -> None:
    expected = bars(plot_bound_decomposition(certificate()))
    assert bars(plot_bound_decomposition(SimpleNamespace(**certificate()))) == expected
    made = dataclasses.make_dataclass("Certificate", certificate())(**certificate())
    assert bars(plot_bound_decomposition([made])) == expected


def test_files_are_read_by_the_module_that_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_decomposition, "read_certificate", lambda path: SimpleNamespace(**certificate()))
    for several in ("model.lsc", Path("runs/model.lsc"), ["model.lsc"]):
        assert plot_bound_decomposition(several).get_yticklabels()[0].get_text() == "model"
    wrong = SimpleNamespace(**(certificate() | {"bound": 0.2}))
    monkeypatch.setattr(_decomposition, "read_certificate", lambda path: wrong)
    with pytest.raises(FileError, match=r"model\.lsc: model claims 0\.2, and its 370 bits give 0\.37"):
        plot_bound_decomposition("model.lsc")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bound": 0.2}, "claims 0.2, and its 370 bits give 0.37"),
        ({"bound": 0.05}, "expected 0 ≤ error ≤ bound"),
        ({"bound": math.nan}, "expected 0 ≤ error ≤ bound"),
        ({"error": -0.1}, "expected 0 ≤ error ≤ bound"),
        ({"payload_bits": 400}, "400 bits of code out of 370 in all"),
        ({"bits": None}, "certificate 1 has no 'bits'"),
        ({"method": "union"}, "the method is 'union'"),
        ({"delta": 1.0}, "strictly between 0 and 1"),
        ({"n": 0}, "at least one example"),
    ],
)
def test_numbers_that_are_no_bound_are_told(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        plot_bound_decomposition(certificate() | change)


def test_none_is_told() -> None:
    with pytest.raises(ValueError, match="at least one"):
        plot_bound_decomposition([])
