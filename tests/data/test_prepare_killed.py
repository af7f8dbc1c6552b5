"""A preparation that is killed at any moment and run again: the same bytes, and nothing done twice that was done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from heads import record, sine, still
from killed_prepare import FORMER, SETTINGS, files, run
from ready import run_script

from fedtalk.data.prepare import prepare
from fedtalk.errors import OutputError

SUPPORT = Path(__file__).parent / "support"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])}


def recordings(folder: Path, *names: str, frames: int = 10) -> None:
    for name in names:
        record(folder / "raw" / name, still(frames), sine(frames))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_before_any_change_on_the_disk_it_ends_as_if_it_had_not_been(tmp_path: Path, step: int) -> None:
    """From an earlier preparation, with another size and other looks, and with a video that was withdrawn since."""
    recordings(tmp_path, "anna/a.mp4", "anna/gone.mp4", "bert/b.mp4")
    run(tmp_path, "former", FORMER)
    (tmp_path / "raw" / "anna" / "gone.mp4").unlink()
    (tmp_path / "told").mkdir()
    done = run_script(SUPPORT / "killed_prepare.py", str(tmp_path), str(step), folder=tmp_path / "told")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["problems"] == []
    assert told["changes"] > 50 and len([name for name in told["files"] if name.endswith("00.npz")]) == 2
    run(tmp_path, "fresh", SETTINGS)
    assert sorted(files(tmp_path / "fresh")) == told["files"], "and as if there had never been another"


def _start(folder: Path, code: str) -> subprocess.Popen[bytes]:
    program = f"from pathlib import Path; import sys; from killed_prepare import SETTINGS, run\n{code}"
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], env=ENVIRONMENT, stderr=subprocess.PIPE, start_new_session=True
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_two_at_a_time_end_with_their_main_process_and_make_what_one_would(tmp_path: Path, how: signal.Signals) -> None:
    recordings(tmp_path, *(f"anna/{name}.mp4" for name in "abcd"))
    process = _start(tmp_path, "if __name__ == '__main__': run(Path(sys.argv[1]), 'clients', SETTINGS, jobs=2)")
    records = tmp_path / "clients" / ".prepare"
    try:
        deadline = time.monotonic() + 120
        while not list(records.glob("[!.]*.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        if how == signal.SIGINT:
            os.killpg(process.pid, how)  # as a terminal does
        else:
            process.send_signal(how)
        process.communicate(timeout=60)  # ends when the workers have let go of the pipe, too
    finally:
        process.kill()
    finished = {path.name: path.stat().st_mtime_ns for path in records.glob("[!.]*.json")}
    run(tmp_path, "clients", SETTINGS, jobs=2)
    run(tmp_path, "alone", SETTINGS)
    assert files(tmp_path / "clients") == files(tmp_path / "alone")
    assert {name: (records / name).stat().st_mtime_ns for name in finished} == finished


def test_a_second_one_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    recordings(tmp_path, "anna/a.mp4")
    holder = _start(
        tmp_path,
        "from fedtalk.run_lock import run_lock\nimport time\n"
        "with run_lock(Path(sys.argv[1]) / 'clients' / '.prepare', 'prepare'): print('held', file=sys.stderr); time.sleep(60)",
    )
    try:
        assert holder.stderr is not None and holder.stderr.readline() == b"held\n"
        with pytest.raises(
            OutputError, match=r"another prepare is running in .* \(process \d+\).*another clients folder"
        ):
            prepare(tmp_path / "raw", tmp_path / "clients", finder="dlib", progress=False)
    finally:
        holder.kill()
        holder.communicate()
    run(tmp_path, "clients", SETTINGS)
