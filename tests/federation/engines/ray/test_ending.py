"""However a run ends, nothing of it goes on: neither workers nor the Ray that it has started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("ray")
PARTS = Path(__file__).parents[2]


def _descendants(process: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *_descendants(child)]
    return found


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, signal.SIGTERM, signal.SIGINT],
)
def test_nothing_outlives_the_main_process(number: int, tmp_path: Path) -> None:
    """Both workers hang in a step when the signal comes."""
    code = (
        f"import sys; sys.path.insert(0, {str(PARTS)!r}); import worker_parts as p; from pathlib import Path\n"
        "from fedtalk.interruption import Interrupted\n"
        f"try: p.fit(Path({str(tmp_path)!r}), {{n: p.Person(does='hang in step') for n in 'ab'}}, workers=2)\n"
        "except Interrupted as stopped: sys.exit(128 + stopped.signal_number)"
    )
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    main = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stderr=subprocess.DEVNULL, env=alone)
    try:
        end = time.monotonic() + 600
        # Prepared clips are there: the clients are in their first step, or about to be.
        while len(list((tmp_path / "cache").rglob("*.safetensors"))) < 4:
            assert time.monotonic() < end and main.poll() is None
            time.sleep(0.1)
        others = _descendants(main.pid)
        assert sum(b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in others) >= 2
        if number == signal.SIGINT:
            os.killpg(main.pid, number)  # as Ctrl-C does
        else:
            main.send_signal(number)
        code = main.wait(timeout=300)
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else 128 + number)
        # Ray's agents look for their raylet once they have imported themselves, and end some ten seconds later; a step hangs for
        # ten minutes.
        end = time.monotonic() + 300
        while any(_alive(other) for other in others):
            assert time.monotonic() < end, [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in others if _alive(pid)]
            time.sleep(0.05)
        leftovers = list((tmp_path / "run").rglob(".part-*"))
        assert not leftovers or number == signal.SIGKILL  # the next fit in the folder removes it then
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(main.pid, signal.SIGKILL)
