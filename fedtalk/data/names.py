"""Names on disk: which belong to the system and not to anybody, and how odd ones are written."""

from __future__ import annotations

import re

SYSTEM_NAMES = frozenset(
    {"__macosx", "lost+found", "system volume information", "thumbs.db", "desktop.ini", "ehthumbs.db", "@eadir"}
    | {
        "@recycle",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "recycler",
        "found.000",
        "snapraid.content",
    }
)
"""Recycle bins, thumbnails and indices of operating systems and storage boxes, in lower case."""
TEMPORARY_SUFFIXES = (".part", ".tmp", ".temp", ".crdownload", ".partial", ".download", ".swp", "~")


def not_data(name: str) -> str | None:
    """Why a file or folder of this name is nobody's data, or None.

    >>> not_data("._x.mp4"), not_data("#recycle"), not_data("x.mp4.part"), not_data("anna")
    ('hidden', 'of the system', 'temporary', None)
    """
    if name.startswith("."):
        return "hidden"
    if name.lower() in SYSTEM_NAMES or name[:1] in "$@":
        return "of the system"
    if name.lower().endswith(TEMPORARY_SUFFIXES) or name.startswith("~$"):
        return "temporary"
    return None


def readable(name: str) -> str:
    r"""A name that can be printed and written: bytes that are no UTF-8 become ``%E9``.

    >>> readable("jos\udce9"), readable("josé")
    ('jos%E9', 'josé')
    """
    return re.sub(r"[\udc80-\udcff]", lambda match: f"%{ord(match[0]) - 0xDC00:02X}", name)
