"""Opening media files: what is missing, empty, damaged or of another kind is named before ffmpeg trips over it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av

from fedtalk.errors import MediaError

PathLike = str | os.PathLike[str]


def require_file(path: Path) -> None:
    """Raise a MediaError that says why, unless ``path`` is a file with something in it."""
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise MediaError(f"{path}: expected a file, got a folder")
        if not path.is_file():
            raise MediaError(f"{path}: expected a file, got a device, pipe or socket")
        if size == 0:
            raise MediaError(f"{path}: the file is empty; copy or download it again")
        with path.open("rb") as stream:
            if stream.read(40).startswith(b"version https://git-lfs"):
                raise MediaError(f"{path}: only a git-LFS pointer, not the media; fetch it with `git lfs pull`")
    except FileNotFoundError as error:
        raise MediaError(f"{path}: no such file") from error
    except OSError as error:
        raise MediaError(f"{path}: can't be read ({error.strerror or error})") from error


@contextlib.contextmanager
def opened(path: Path, *, edited: bool = True) -> Iterator[Any]:
    """The file as an ``av`` container.

    Args:
        path: the file.
        edited: whether ffmpeg applies edit lists; else timestamps are those of the tracks' own clocks.

    Raises:
        MediaError: it can't be opened, or holds neither picture nor sound.
    """
    require_file(path)
    unreadable = f"{path}: not a readable video or sound file; it is damaged, cut short or of another kind"
    options = {} if edited else {"ignore_editlist": "1"}
    with contextlib.ExitStack() as stack:
        name: Any = f"file:{path}"  # else ffmpeg takes what precedes a colon in the name for a protocol
        try:
            name.encode()
        except UnicodeEncodeError:  # a name of bytes that are no UTF-8: ffmpeg is handed the open file
            name = stack.enter_context(path.open("rb"))
        try:
            container = stack.enter_context(av.open(name, options=options, metadata_errors="replace"))
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(f"{unreadable} ({getattr(error, 'strerror', error)})") from error
        if not (container.streams.video or container.streams.audio):  # an mp4 that is cut within its index
            raise MediaError(unreadable)
        yield container
