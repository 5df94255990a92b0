from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from landscape import _private

ROOT = Path(__file__).parents[1]
FOREIGN = ("torch", "torchmetrics", "pytorch_lightning", "lightning", "numpy", "scipy")
# Strings that look like private names: modules of Python, public parts of named tuples, parts of names, columns.
PARTS = {"_components", "_layout_", "_mask", "_orig", "_reverse", "_stderr", "_stderr_sample"}
NO_ATTRIBUTES = {*sys.stdlib_module_names, *PARTS, "_make", "_fields", "_measure", "_target"}


def trees() -> dict[Path, ast.Module]:
    files = [path for folder in ("landscape", "callbacks", "scripts") for path in (ROOT / folder).rglob("*.py")]
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}


def is_name(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def defined(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_name(node.value, "self"):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def foreign_private(tree: ast.AST, own: set[str]) -> Iterator[str]:
    """Private names of other packages in a module: imported ones, attributes and strings that name nothing of ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in FOREIGN:
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from filter(is_private, names)
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            ours = is_name(node.value, "self", "cls") or node.attr in own - set(_private.REGISTRIES)
            if not ours:
                yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # By such strings getattr, setattr and vars reach an attribute.
            reaches = is_private(node.value) and node.value.isidentifier()
            yield from {repr(node.value)} if reaches and node.value not in own | NO_ATTRIBUTES else ()


def test_private_names_of_other_packages_stand_in_one_package():
    parsed = trees()
    own = {name for tree in parsed.values() for name in defined(tree)} | {path.stem for path in parsed}
    home = ROOT / "landscape" / "_private"
    found = {path: set(foreign_private(tree, own)) for path, tree in parsed.items()}
    assert all(found.pop(home / name) for name in ("_checkpointing.py", "_lightning.py", "_torch.py"))
    assert {str(path.relative_to(ROOT)): names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "code",
    ["from torch.utils import _pytree", "layer._buffers", "getattr(loop, '_data_source')", "NAMES = ('_check',)"],
)
def test_each_way_to_a_private_name_is_found(code):
    assert list(foreign_private(ast.parse(code), {"_ours"}))
    assert not list(
        foreign_private(ast.parse("self._x = name.removesuffix('_stderr') + '_ours' + layer._ours"), {"_ours"})
    )
