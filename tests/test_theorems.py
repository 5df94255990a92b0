"""The tests that docs/theorems.md names are there, and marked slow where it says so."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
CELL = re.compile(r"`([^`]*?)(?:::(\w+))?`( ◦)?")


def named() -> list[tuple[str, str, bool]]:
    """File, test (or none) and mark of each entry; `::test` alone is of the file before it."""
    page = (TESTS.parent / "docs" / "theorems.md").read_text(encoding="utf-8")
    rows = [line.split("|")[2] for line in page.splitlines() if "test_" in line and line.startswith("|")]
    found = []
    for row in rows:
        path = ""
        for file, test, slow in CELL.findall(row):
            path = file or path
            found.append((path, test, bool(slow)))
    return found


def test_every_named_test_is_there() -> None:
    entries = named()
    assert len(entries) > 50
    for path, test, slow in entries:
        source = (TESTS / path).read_text(encoding="utf-8")
        found = re.search(rf"((?:^@.*\n)*)^def {test}\(", source, flags=re.MULTILINE) if test else None
        assert found or not test, f"{path} has no {test}"
        marks = (found[1] if found else "") + "\n".join(re.findall(r"^pytestmark = .*", source, flags=re.MULTILINE))
        assert slow == ("@pytest.mark.slow\n" in marks or "pytestmark = pytest.mark.slow" in marks), f"{path}::{test}"
