"""Write docs/support.md from the cells of the matrix, and compare single rows with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from landscape_test_support import data, losses, models, trainings
from landscape_test_support.cells import MEASURES, MISSING, REFUSED, RIGHT, Cell, Verdict
from landscape_test_support.kind import Kind
from landscape_test_support.regimes import REGIMES, Regime

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "support.md"
CELLS = ROOT / "build" / "support"
COMMAND = "LANDSCAPE_WRITE_SUPPORT=1 python -m pytest -n 2 -m slow tests/support"

SECTIONS = {
    "The loss": losses.KINDS,
    "The network": models.KINDS,
    "The batches": data.KINDS,
    "The training": trainings.KINDS,
}
KINDS = [kind for kinds in SECTIONS.values() for kind in kinds]
_TITLES = {
    "loss": "loss",
    "lambda_max": "λmax",
    "trace": "trace",
    "average_case": "average case",
    "worst_case": "worst case",
    "sam": "SAM",
    "bits": "bits",
    "connectivity": "connectivity",
    "learning_coefficient": "learning coefficient",
    "weights": "weights",
}
Cells = dict[str, Cell]  # of one kind, by regime

_HEAD = f"""# What is supported

This page is written by the tests (`{COMMAND}`); do not edit it by hand.

Each row is a kind of LightningModule, trained for two epochs on the CPU with all callbacks. The trainings are repeated
without callbacks: "training" says whether both ended bit-identical, in weights, gradients, optimiser state, random
generators and counters. Each measure is compared with a reference of its own:

| measure | reference |
|---|---|
| loss | mean of the module's own `training_step` over the measured batches, in float64, to 1e-5 |
| λmax, trace | the dense Hessian in float64, to 1e-4 (of its norm, for a trace also five standard errors) |
| average case, SAM | the same formula with the bare float64 loss, to 0.1 % |
| worst case, bits | the same search with the bare loss, to 2 % |
| connectivity | the bare loss at both ends and in the middle of the line, to 1e-4 |
| learning coefficient | nβ from the number of examples, and the same chains with the bare loss, to 2 % |
| weights | the recorded state gives back the module's own, bit by bit |

How to read a cell:

- ✓: the recorded number is right.
- [1](#1): there is no number; the sentence with this number stands in the file instead.
- **wrong**: there is a number, and it is not right.
- **nothing**: there is neither a number nor a sentence.
- –: Lightning or torch does not allow this combination, or it was not tried.

## Kinds of modules

In float32 and eval mode, the default.
"""

_REGIMES = """
## Regimes

✓ says that every measure is as in the first table and that the training ended bit-identical; otherwise the cell
names what differs.

| regime | what it is |
|---|---|
"""

_OTHERS = """
## Modules of other packages

`make test-field` trains unmodified modules with `default_callbacks()`, and compares every measure with the same
references (`tests/field`). Their packages are installed beside torch, without replacing it.

| package | modules | outcome |
|---|---|---|
| transformers | BERT with `DataCollatorWithPadding`, GPT-2 with and without `num_items_in_batch`, T5, ViT, Mamba | ✓ |
| peft | Llama with low-rank adapters | ✓ |
| torch_geometric | GIN over batches of graphs, GCN over the nodes of one graph | ✓ |
| monai | U-Net with the Dice loss, GAN through `landscape_loss` | ✓ |
| monai | variational autoencoder, with `mode="train"`: its eval mode cannot be differentiated | ✓ |
| diffusers | UNet2DModel as a denoiser, with `noise_seed=0` | ✓ |
| pytorch_metric_learning | SimCLR with `NTXentLoss`: the mean over batches as given | ✓ |
| siren_pytorch | physics-informed network with a second derivative by the input | ✓ |
| torchdiffeq, mambapy | neural differential equation in fixed steps, parallel scan | ✓ |
| vector_quantize_pytorch | vector quantiser in eval mode | ✓ |
| vector_quantize_pytorch | the same with `mode="train"`: straight-through, so no measure of the gradient | refused |

timm and lightly need torchvision, whose wheel on PyPI does not import beside the CPU build of torch; they are not
tried.
"""


class Notes:
    """Numbers of the sentences on the page, in the order of their first use."""

    def __init__(self, sentences: list[str] | None = None):
        self.sentences = list(sentences or [])

    @classmethod
    def of(cls, page: str) -> Notes:
        """Read the sentences back from a page."""
        return cls(re.findall(r"^<a id=\"\d+\"></a>\d+\. (.*)$", page, flags=re.MULTILINE))

    def link(self, sentence: str) -> str:
        """Return the reference to a sentence; numbers in it that depend on rounding are left out."""
        plain = re.sub(r"-?\d+\.\d+(e[-+]?\d+)?", "…", sentence)
        if plain not in self.sentences:
            self.sentences.append(plain)
        number = self.sentences.index(plain) + 1
        return f"[{number}](#{number})"


def applies(kind: Kind, regime: Regime) -> bool:
    """Whether a kind is trained in a regime."""
    if kind.only or regime.only:
        return regime.name in kind.only or kind.name in regime.only
    return regime.name not in kind.leaves_out


def mark(verdict: Verdict, notes: Notes) -> str:
    """Return what stands in a cell."""
    if verdict.outcome == REFUSED:
        return notes.link(verdict.text)
    return {RIGHT: "✓", MISSING: "**nothing**"}.get(verdict.outcome, "**wrong**")


def first_row(kind: Kind, cells: Cells, notes: Notes) -> str:
    """Return the kind's row of the first table."""
    cell = cells[REGIMES[0].name]
    marks = [mark(cell.verdicts[measure], notes) for measure in MEASURES]
    return f"| {kind.name} | {_identical(cell)} | " + " | ".join(marks) + " |"


def second_row(kind: Kind, cells: Cells, notes: Notes) -> str:
    """Return the kind's row of the second table: what differs from the first in the other regimes."""
    default = cells[REGIMES[0].name]
    parts = [
        _difference(default, cells[regime.name], notes) if applies(kind, regime) else "–" for regime in REGIMES[1:]
    ]
    return f"| {kind.name} | " + " | ".join(parts) + " |"


def _identical(cell: Cell) -> str:
    return "identical" if cell.identical else "**changed**"


def _difference(default: Cell, cell: Cell, notes: Notes) -> str:
    found = [] if cell.identical else ["training **changed**"]
    marks: dict[str, list[str]] = {}
    for measure, verdict in cell.verdicts.items():
        text = mark(verdict, notes)
        if text != mark(default.verdicts[measure], notes):
            marks.setdefault(text, []).append(_TITLES[measure])
    found += [
        "every measure " + text if len(names) == len(MEASURES) else f"{', '.join(names)} {text}"
        for text, names in marks.items()
    ]
    return "; ".join(found) or "✓"


def page(results: dict[str, Cells]) -> str:
    """Return the page.

    Args:
        results: The cells of every kind, by the kind's name and the regime's.

    Returns:
        Markdown.
    """
    notes, lines = Notes(), [_HEAD]
    for title, kinds in SECTIONS.items():
        lines.append(f"**{title}.**")
        lines.append("\n".join(f"- {kind.name}: {kind.about}." for kind in kinds) + "\n")
        lines.append("| kind | training | " + " | ".join(_TITLES[measure] for measure in MEASURES) + " |")
        lines.append("|---" * (len(MEASURES) + 2) + "|")
        lines += [first_row(kind, results[kind.name], notes) for kind in kinds]
        lines.append("")
    lines.append(_REGIMES.strip("\n"))
    lines += [f"| {regime.name} | {regime.about} |" for regime in REGIMES]
    lines.append("\n| kind | " + " | ".join(regime.name for regime in REGIMES[1:]) + " |")
    lines.append("|---" * len(REGIMES) + "|")
    lines += [second_row(kind, results[kind.name], notes) for kind in KINDS if len(results[kind.name]) > 1]
    lines.append(_OTHERS.rstrip("\n"))
    lines.append("\n## The sentences\n")
    sentences = [f'<a id="{number}"></a>{number}. {text}' for number, text in enumerate(notes.sentences, 1)]
    lines.append("\n\n".join(sentences))
    return "\n".join(lines) + "\n"


def _file(name: str) -> Path:
    return CELLS / f"{re.sub(r'[^a-zA-Z0-9]+', '-', name)}.json"


def store(kind: Kind, cells: Cells) -> None:
    """Keep the cells of a kind for `write`."""
    CELLS.mkdir(parents=True, exist_ok=True)
    plain: dict[str, Any] = {
        regime: [cell.identical, {name: [verdict.outcome, verdict.text] for name, verdict in cell.verdicts.items()}]
        for regime, cell in cells.items()
    }
    _file(kind.name).write_text(json.dumps(plain))


def write() -> None:
    """Write the page from the stored cells, once those of every kind are there."""
    files = {kind.name: _file(kind.name) for kind in KINDS}
    if not all(file.exists() for file in files.values()):
        return
    results = {name: _read(file) for name, file in files.items()}
    PAGE.write_text(page(results))


def _read(file: Path) -> Cells:
    return {
        regime: Cell(identical, {name: Verdict(*verdict) for name, verdict in verdicts.items()})
        for regime, (identical, verdicts) in json.loads(file.read_text()).items()
    }
