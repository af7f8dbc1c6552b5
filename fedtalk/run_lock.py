"""One command a folder: two runs that write the same files would each undo the other's work."""

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
ANOTHER_RUN = "give this run its own folder with --trainer.default_root_dir"


@contextlib.contextmanager
def run_lock(folder: Path, what: str = "fit", instead: str = ANOTHER_RUN) -> Iterator[None]:
    """Hold the advisory lock ``FOLDER/.lock`` while the block runs.

    The kernel holds the lock for the process and lets go of it when the process ends, however it ends; the file itself
    stays and means nothing. Where the file system knows no locks (some network mounts) a warning says so, and nothing is
    protected.

    Args:
        folder: made if it is missing.
        what: kind of command that locks this folder, for messages.
        instead: what a second one can do, for messages.

    Raises:
        OutputError: another process holds the lock, or the folder can't be written.
    """
    path = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. Expected a writable folder for the {what}; {instead}."
        ) from error
    try:
        _acquire(handle, folder, what, instead)
        yield
    finally:
        os.close(handle)  # and with it the lock


def _acquire(handle: int, folder: Path, what: str, instead: str) -> None:
    if fcntl is None:
        log.warning("this system has no file locks: make sure that no other %s writes to %s", what, folder)
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            log.warning(
                "%s can't be locked (%s): make sure that no other %s writes to it", folder, error.strerror, what
            )
            return
        holder = os.pread(handle, 20, 0).decode(errors="replace").strip()
        raise OutputError(
            f"another {what} is running in {folder}{f' (process {holder})' if holder else ''}; expected one {what} a folder. "
            f"Wait for it or stop it, or {instead}."
        ) from error
    with contextlib.suppress(OSError):  # only the error message needs it: a full disk is no reason to stop here
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
