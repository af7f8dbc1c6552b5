"""What the documentation points to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PATH = re.compile(r"(?<![\w/.])(?:tests|scripts|configs|callbacks)/[\w/.-]*\w/?")
TEST = re.compile(r"(?<![\w/])test_\w+\.py")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    missing = {name for name in PATH.findall(page.read_text(encoding="utf-8")) if not (ROOT / name).exists()}
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_test_named_without_its_folder_is_the_only_one_of_that_name(page: Path) -> None:
    names = set(TEST.findall(page.read_text(encoding="utf-8")))
    found = {name: [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob(name)] for name in names}
    assert all(len(paths) == 1 for paths in found.values()), found


def test_every_row_of_the_threat_table_says_where_it_is_tested() -> None:
    text = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.split("\n\n")[1].splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in rows[0]] == ["adversary", "what it sees", "epsilon printed", "tested where"]
    assert len(rows) > 8
    for adversary, *_, where in rows[2:]:
        assert PATH.search(where) or TEST.search(where) or "*Not covered by epsilon*, below" in where, adversary
