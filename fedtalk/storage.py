"""Files that are whole or absent: everything fedtalk writes goes to a temporary neighbour and is then renamed."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedtalk.errors import OutputError

try:
    import fcntl
except ImportError:  # no advisory locks of this kind on Windows
    fcntl = None  # type: ignore[assignment]

PART = ".part-"
"""Begins the names of temporary files."""


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str], private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; rename it to ``target`` if the block succeeds, remove it if not.

    The temporary file keeps the suffix, since writers of media choose their format by it.

    Args:
        target: file to write.
        private: readable and writable by its owner alone (mode 0600), and on the disk, name and all, when the block is
            left: a loss of power can't bring back what was there before.

    Raises:
        OutputError: the folder can't be written or the disk is full; ``target`` keeps its old content.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{PART}{target.stem}-", suffix=target.suffix, dir=target.parent)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}. Expected a writable folder with free space; "
            "choose another output folder or free some space."
        ) from error
    temporary = Path(name)
    if not _locked(handle):  # Windows renames no open file
        os.close(handle)
        handle = -1
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o600 if private else 0o666 & ~_umask())
        os.replace(temporary, target)
        if private:
            _sync_folder(target.parent)
    except OSError as error:
        raise OutputError(
            f"writing {target} failed: {error.strerror or error}. Nothing was left behind and an older file, "
            "if there was one, is untouched. Free some space or choose another output folder, then run again."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
        if handle >= 0:
            os.close(handle)


def check_writable(target: str | os.PathLike[str]) -> None:
    """Find out before any work whether ``target`` could be written.

    Raises:
        OutputError: its folder can't be, or ``target`` is a folder.
    """
    target = Path(target)
    if target.is_dir():
        raise OutputError(f"cannot write {target}: there is a folder of that name; choose another name")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}. Expected a writable folder with free space; "
            "choose another output folder or free some space."
        ) from error


def remove_leftovers(folder: Path, of: str | None = None) -> None:
    """Remove the temporary files of processes that were killed while they wrote; those that are being written stay.

    Args:
        folder: where, and in all folders below it.
        of: only those of a file of this name, in the folder itself.
    """
    own = f"{PART}*" if of is None else f"{PART}*{glob.escape(Path(of).stem)}-*"
    for path in folder.rglob(own) if of is None else folder.glob(own):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
            if fcntl is None or _locked(stream.fileno()):
                path.unlink()


def _locked(handle: int) -> bool:
    """Take the lock that says that a temporary file is being written; False where another process holds it.

    Where the file system knows no locks, it is as if nobody did.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def write_json(target: str | os.PathLike[str], value: Any, private: bool = False) -> None:
    """Write ``value`` as indented JSON, atomically; ``private`` as in `atomic_path`."""
    with atomic_path(target, private) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold an advisory lock on ``path``, a file that means nothing else, while the block runs; wait for it.

    Where the file system knows no locks, nothing is protected.

    Raises:
        OutputError: the file can't be opened for writing.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}. Expected a writable folder.") from error
    try:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # and with it the lock


def _sync_folder(folder: Path) -> None:
    """Bring a folder's list of names to the disk; systems that can't open folders (Windows) do it by themselves."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
