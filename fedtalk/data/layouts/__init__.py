"""Trees of raw videos: which file is whose. A layout takes the folder of raw videos and returns its `Sources`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from fedtalk.checks import check_choice
from fedtalk.data.layouts.folder import face_picture, folder_layout
from fedtalk.data.layouts.public import LAYOUTS as PUBLIC
from fedtalk.data.layouts.tree import VIDEO_SUFFIXES, Source, Sources
from fedtalk.errors import MediaError

LAYOUTS: dict[str, Callable[[Path], Sources]] = {"folder": folder_layout, **PUBLIC}
"""Layouts by name."""
Layout = Literal["folder", "cremad", "grid", "hdtf", "lrs3", "ravdess", "voxceleb2"]

__all__ = ["LAYOUTS", "VIDEO_SUFFIXES", "Layout", "Source", "Sources", "face_picture", "find_sources"]


def find_sources(raw: str | os.PathLike[str], layout: Layout) -> Sources:
    """List the videos below ``raw``, laid out as ``layout`` says.

    Raises:
        ConfigurationError: unknown layout.
        MediaError: no such folder, or none of its videos lies where the layout expects it.
    """
    check_choice("layout", layout, Layout)
    raw = Path(raw)
    if not raw.is_dir():
        raise MediaError(f"raw videos {raw}: expected a folder, got {'a file' if raw.exists() else 'nothing there'}")
    return LAYOUTS[layout](raw)
