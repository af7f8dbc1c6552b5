"""Processes of their own that have imported fedtalk already: forks of one that has done nothing else."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["fedtalk.commands.training"])


def begin(work: Callable[..., object], *arguments: object, log: Path, folder: Path | None = None) -> BaseProcess:
    """Do it in a process, session and group of its own, with what it returns as exit status.

    Args:
        work: that can be imported by its name.
        arguments: that can be pickled.
        log: gets all that is printed.
        folder: that it works in; this process's.
    """
    process = _context.Process(target=_work, args=(work, arguments, log, folder or Path.cwd(), dict(os.environ)))
    process.start()
    return process


def run_script(path: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """As ``python path arguments`` in a process of its own.

    Args:
        folder: for what it prints.
    """
    said, log = folder / "said.txt", folder / "log.txt"
    process = begin(_script, str(path), arguments, said, log=log)
    process.join()
    assert process.exitcode is not None
    done = subprocess.CompletedProcess([str(path), *arguments], process.exitcode, said.read_text(), log.read_text())
    process.close()
    return done


def _work(
    work: Callable[..., object], arguments: tuple[object, ...], log: Path, folder: Path, environment: dict[str, str]
) -> None:
    import torch

    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    _print_to(log, 1, 2)
    sys.exit(work(*arguments))  # type: ignore[arg-type]


def _script(path: str, arguments: tuple[str, ...], said: Path) -> object:
    _print_to(said, 1)
    sys.argv = [path, *arguments]
    sys.path.insert(0, str(Path(path).parent))
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as ended:
        return ended.code
    return 0


def _print_to(path: Path, *descriptors: int) -> None:
    sys.stdout.flush()
    with path.open("ab") as stream:
        for descriptor in descriptors:
            os.dup2(stream.fileno(), descriptor)
