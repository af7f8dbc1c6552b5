"""Files that are whole or absent: everything fedtalk writes goes to a temporary neighbour and is then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedtalk.errors import OutputError

PART = ".part-"
"""Begins the names of temporary files."""


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; rename it to ``target`` if the block succeeds, remove it if not.

    The temporary file keeps the suffix, since writers of media choose their format by it.

    Raises:
        OutputError: the folder can't be written or the disk is full; ``target`` keeps its old content.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{PART}{target.stem}-", suffix=target.suffix, dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}. Expected a writable folder with free space; "
            "choose another output folder or free some space."
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(
            f"writing {target} failed: {error.strerror or error}. Nothing was left behind and an older file, "
            "if there was one, is untouched. Free some space or choose another output folder, then run again."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


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


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote. Nobody else may be writing there."""
    for path in folder.rglob(f"{PART}*"):
        path.unlink(missing_ok=True)


def write_json(target: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n", encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
