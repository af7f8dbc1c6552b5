"""`import fedtalk` offers what a run is built with, and costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fedtalk


def test_everything_that_is_offered_is_there() -> None:
    for name in fedtalk.__all__:
        assert getattr(fedtalk, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Talkr'"):
        fedtalk.Talkr  # noqa: B018


def test_importing_it_imports_no_heavy_library() -> None:
    code = "import fedtalk, sys; print(sorted({'torch', 'lightning', 'diffusers'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
