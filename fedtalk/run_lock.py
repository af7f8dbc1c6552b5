"""One fit a folder: two runs that write the same checkpoint would each undo the other's rounds."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from fedtalk.errors import OutputError

try:
    import fcntl
except ImportError:  # no advisory locks of this kind on Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

LOCK_FILE = ".lock"


@contextlib.contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Hold the advisory lock ``RUN/.lock`` while the block runs.

    The kernel holds the lock for the process and lets go of it when the process ends, however it ends; the file itself
    stays and means nothing. Where the file system knows no locks (some network mounts) a warning says so, and nothing is
    protected.

    Args:
        run_dir: folder of the run; made if it is missing.

    Raises:
        OutputError: another fit holds the lock, or the folder can't be written.
    """
    path = run_dir / LOCK_FILE
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. Expected a writable folder for the run; choose another "
            "one with --trainer.default_root_dir."
        ) from error
    try:
        _acquire(handle, run_dir)
        yield
    finally:
        os.close(handle)  # and with it the lock


def _acquire(handle: int, run_dir: Path) -> None:
    if fcntl is None:
        log.warning("this system has no file locks: make sure that no other fit writes to %s", run_dir)
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            log.warning("%s can't be locked (%s): make sure that no other fit writes to it", run_dir, error.strerror)
            return
        holder = os.pread(handle, 20, 0).decode(errors="replace").strip()
        raise OutputError(
            f"another fit is running in {run_dir}{f' (process {holder})' if holder else ''}; expected one fit a folder. "
            "Wait for it or stop it, or give this run its own folder with --trainer.default_root_dir."
        ) from error
    with contextlib.suppress(OSError):  # only the error message needs it: a full disk is no reason to stop here
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
