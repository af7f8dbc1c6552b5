"""What is installed is what is in the tree."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


def test_every_package_of_the_tree_is_listed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "fedtalk").rglob("__init__.py")}
    assert found | {"fedtalk.callbacks"} == listed


def test_callbacks_are_one_module() -> None:
    import fedtalk.callbacks.aggregation as installed

    assert Path(installed.__file__).resolve() == ROOT / "callbacks" / "aggregation.py"
    assert "callbacks" not in sys.modules
