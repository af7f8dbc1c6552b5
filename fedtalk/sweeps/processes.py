"""Processes of a sweep's runs: new ones, or forks of one that has done the imports, which take most of a short run's start."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Protocol

from fedtalk.sweeps.environment import THREADS

SINGLE = "fedtalk.sweeps.single"
"""The module that a run is."""
PREPARED = ["fedtalk.commands.training", "fedtalk.evaluation.evaluate", "torch.utils.tensorboard"]

_lock = threading.Lock()  # multiprocessing looks at all children whenever it starts one
_prepared_for: dict[str, str] = {}
"""What the forks' origin was begun with, of the environment by which libraries count their threads."""


class RunProcess(Protocol):
    """What a sweep asks of a run's process."""

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


def prepare(environment: Mapping[str, str]) -> None:
    """Begin the imports in the process that runs are forks of. There is one a process; runs with other threads are new ones."""
    with _lock:
        if _prepared_for or "forkserver" not in multiprocessing.get_all_start_methods():
            return
        _prepared_for.update(_threads(environment))
        own = dict(os.environ)
        multiprocessing.get_context("forkserver").set_forkserver_preload(PREPARED)
        try:
            os.environ.update(environment)
            forkserver.ensure_running()
        finally:
            os.environ.clear()
            os.environ.update(own)


def start(command: Sequence[str], log: Path, environment: Mapping[str, str], forked: bool = True) -> RunProcess:
    """Start a command in a session of its own, so that Ctrl-C reaches the sweep alone, which then asks each run to stop, once.

    Args:
        command: of a run, ``python -m fedtalk.sweeps.single ...``, where it may be a fork.
        log: what it prints is appended.
        environment: all of it.
        forked: from what `prepare` has begun, where that has the same threads.
    """
    is_run = list(command[:3]) == [sys.executable, "-m", SINGLE]
    if forked and is_run and _prepared_for == _threads(environment):
        return _Fork(command[3:], log, environment)
    with log.open("a", encoding="utf-8") as stream:
        return subprocess.Popen(
            command, stdout=stream, stderr=stream, env=environment, start_new_session=True, stdin=subprocess.DEVNULL
        )


def _threads(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: environment.get(name, "") for name in THREADS}


class _Fork:
    def __init__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=_run, args=(list(arguments), str(log), dict(environment), os.getcwd()))
        with _lock:
            self._process.start()

    def poll(self) -> int | None:
        with _lock:
            return self._process.exitcode

    def wait(self) -> int:
        connection.wait([self._process.sentinel])
        code = self.poll()
        assert code is not None
        return code

    def terminate(self) -> None:
        with _lock:
            self._process.terminate()

    def kill(self) -> None:
        with _lock:
            self._process.kill()


def _run(arguments: list[str], log: str, environment: dict[str, str], folder: str) -> None:
    """In the fork: what ``python -m fedtalk.sweeps.single`` does."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for path, flags, descriptors in (
        (os.devnull, os.O_RDONLY, (0,)),
        (log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, (1, 2)),
    ):
        opened = os.open(path, flags, 0o644)
        for descriptor in descriptors:
            os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = [SINGLE, *arguments]
    runpy.run_module(SINGLE, run_name="__main__")
