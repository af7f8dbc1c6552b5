"""Two fits in one folder are refused; a lock outlives no process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from fedtalk.callbacks.base import RoundCallback
from fedtalk.errors import OutputError
from fedtalk.run_lock import run_lock


def _hold(folder: Path) -> int:
    """A process that holds the lock until it is killed; returns its number once it does."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with run_lock(folder):
            os.write(writer, b"x")
            time.sleep(60)
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    return child


def _kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_second_fit_in_a_folder_is_refused_before_any_work(run, people, tmp_path: Path) -> None:
    child = _hold(tmp_path / "run")
    try:
        with pytest.raises(OutputError, match=rf"another fit is running in .*run \(process {child}\)") as error:
            run(people)
        assert "--trainer.default_root_dir" in str(error.value)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
        run(people, folder="another")
    finally:
        _kill(child)
    assert run(people).trainer.round_number == 1  # killed as it was, it holds nothing back


def test_a_fit_holds_the_lock_to_its_end_and_no_longer(run, people, tmp_path: Path) -> None:
    refused = []

    class Second(RoundCallback):
        def on_fit_rounds_end(self, trainer: object, module: object) -> None:
            with pytest.raises(OutputError, match="another fit is running"), run_lock(tmp_path / "run"):
                pass
            refused.append(True)

    run(people, callbacks=[Second()])
    assert refused == [True]
    with run_lock(tmp_path / "run"):
        pass


def test_a_failed_fit_lets_go_of_its_folder(run, people, tmp_path: Path) -> None:
    class Fail(RoundCallback):
        def on_round_end(self, *arguments: object) -> None:
            raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        run(people, callbacks=[Fail()])
    with run_lock(tmp_path / "run"):
        pass


def test_a_file_system_without_locks_is_told_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import errno

    from fedtalk import run_lock as module

    def refuse(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module.fcntl, "flock", refuse)
    with run_lock(tmp_path):
        assert "No locks available" in caplog.text
