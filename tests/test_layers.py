"""Modules import from their own layer and those above it in the table of docs/architecture.md, and from no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# They take a run file's path, as the page says.
UPWARDS = {("averaging", "record"), ("surface", "record")}


def layers() -> dict[str, int]:
    """The layer of each package, counted along the table."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    names = [re.findall(r"`(?:landscape\.)?(\w+)`", row) for row in rows]
    return {name: place for place, row in enumerate(names) for name in row}


def part_of(path: Path) -> str:
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    return {"callbacks": "callbacks", "scripts": "studies"}.get(folder) or rest[0]


def imported(tree: ast.AST) -> Iterator[str]:
    """The parts of the package that run when the module does: what type checkers alone see is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "landscape":
            inner = (node.module or "").split(".")[1:2]
            yield from inner or [name.name for name in node.names]
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("landscape."))
        else:
            yield from imported(node)


def test_no_module_imports_from_a_later_layer() -> None:
    order = layers()
    base = order["objective"]
    packages = {path.name for path in (ROOT / "landscape").iterdir() if (path / "__init__.py").exists()}
    assert packages | {"callbacks", "studies"} <= set(order), "a package has no row in docs/architecture.md"
    found, edges = [], set()
    for folder in ("landscape", "callbacks", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            mine = part_of(path)
            for other in set(imported(ast.parse(path.read_text(encoding="utf-8")))) - {mine}:
                edges.add((mine, other))
                # Private modules beside the objective that the table does not name belong to its layer.
                if order.get(other, base) > order.get(mine, base) and (mine, other) not in UPWARDS:
                    found.append(f"{path.relative_to(ROOT)} imports {other}")
    assert found == []
    assert edges >= UPWARDS  # else the exceptions are out of date
    assert ("sharpness", "curvature") in edges
