"""A process that is killed at any instant has charged what it may have released, in its own folder and in copies."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ready import run_script

SCRIPT = Path(__file__).parent / "support" / "killed_ledger.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_what_was_released_is_on_the_disk_whenever_a_process_is_killed(tmp_path: Path) -> None:
    done = run_script(SCRIPT, str(tmp_path / "ledgers"), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) > 10 and [state["killed"] for state in found] == [True] * (len(found) - 1) + [False]
    for state in found:
        assert min(state["charged"]) >= state["released"], state
    released = [state["released"] for state in found]
    assert (
        released[-1] == released[-2] + 2 and len(set(released)) > 3
    )  # some died with a round released, or nothing was tried
