"""How a share is read and written."""

from __future__ import annotations

import pytest

from landscape.callbacks import HessianSpectrum, default_callbacks
from landscape.callbacks._overhead import percent, share_of


@pytest.mark.parametrize(
    ("given", "share"), [("10%", 0.1), (" 5 % ", 0.05), ("0.5%", 0.005), (0.1, 0.1), (2, 2.0), (None, None)]
)
def test_shares(given, share) -> None:
    assert share_of(given) == share


@pytest.mark.parametrize("given", ["10", "ten%", "", 0, -0.1, "0%", True, float("nan"), float("inf"), [0.1]])
def test_what_is_no_share(given) -> None:
    with pytest.raises(ValueError, match="give a share of the training's time as '10%' or 0.1, or None"):
        share_of(given)


def test_in_words() -> None:
    assert [percent(share) for share in (0.098, 0.1, 0.5, 1.25)] == ["9.8 %", "10 %", "50 %", "125 %"]


def test_defaults() -> None:
    assert [callback.share for callback in default_callbacks()] == [0.1] * 5
    assert [callback.share for callback in default_callbacks(every_n_epochs=1)] == [0.1] * 5
    assert [callback.share for callback in default_callbacks(overhead=None)] == [None] * 5
    assert HessianSpectrum(every_n_epochs=1).share is None


def test_the_former_argument_names_the_new_one() -> None:
    with pytest.raises(TypeError, match="overhead="):
        HessianSpectrum(budget=0.1)
