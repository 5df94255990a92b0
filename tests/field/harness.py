"""Train modules of other packages with default_callbacks(), and compare the numbers with the bare float64 loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from landscape_test_support.cells import REFUSED, RIGHT, examine
from landscape_test_support.kind import Kind, Learns
from landscape_test_support.regimes import REGIMES

from landscape.callbacks import default_callbacks


class Wraps(Learns):
    """Trains a model of transformers: it takes the batch by keywords and returns an output with a loss."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the model's own loss."""
        return self.model(**batch).loss


def defaults(**common: Any) -> list[Any]:
    """Return default_callbacks() after the second epoch, with a short training of the curve between the epochs."""
    callbacks = default_callbacks(every_n_epochs=2, overhead=None, **common)
    callbacks[-1].curve_steps, callbacks[-1].progress = 5, False
    return callbacks


def check(kind: Kind, folder: Path, refused: tuple[str, ...] = ()) -> None:
    """Train two epochs with and without the callbacks, and demand that every measure is right.

    Args:
        kind: The module and its data.
        folder: An empty folder.
        refused: Measures that must give no number, but a sentence.
    """
    cell = examine(kind, REGIMES[0], folder, defaults)
    assert cell.identical
    expected = {measure: REFUSED if measure in refused else RIGHT for measure in cell.verdicts}
    found = {measure: verdict.outcome for measure, verdict in cell.verdicts.items()}
    assert found == expected, "\n".join(f"{measure}: {verdict}" for measure, verdict in cell.verdicts.items())
