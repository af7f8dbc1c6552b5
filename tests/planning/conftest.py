"""The small federation of tests/federation, for estimates of it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_SPEC = importlib.util.spec_from_file_location(
    "federation_fixtures", Path(__file__).parents[1] / "federation" / "conftest.py"
)
assert _SPEC is not None and _SPEC.loader is not None
_FIXTURES = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _FIXTURES  # dataclasses look their module up
_SPEC.loader.exec_module(_FIXTURES)

run, people, colours = _FIXTURES.run, _FIXTURES.people, _FIXTURES.colours
colour_data, parts = _FIXTURES.colour_data, _FIXTURES.parts
