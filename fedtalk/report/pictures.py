"""Videos and pictures as a page holds them, inside itself."""

from __future__ import annotations

import base64
import math
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fedtalk.errors import ArtifactError
from fedtalk.evaluation.shown import DUB, PORTRAIT, SWAPPED
from fedtalk.report.grids import worth as worth_of

KINDS = {DUB: "truth left, dubbed right", SWAPPED: "speaking for another", PORTRAIT: "portrait"}
LARGEST_VIDEO = 4_000_000
"""Bytes; larger files are named and not embedded."""
LARGEST_WIDTH = 1600
"""Of a contact sheet, in pixels."""


@dataclass(frozen=True)
class EmbeddedVideo:
    title: str
    data: str
    """A data URI; empty where the file is too large or gone."""
    note: str


def embedded_videos(paths: Sequence[Path], clips: Sequence[Mapping[str, Any]], most: int) -> list[EmbeddedVideo]:
    """Videos of the clients that came out worst first.

    Args:
        paths: of the files, named by client and kind.
        clips: of ``metrics.json``.
        most: videos.
    """
    worth: dict[str, float] = {}
    for clip in clips:
        worth[clip["client"]] = min(worth_of(clip), worth.get(clip["client"], math.inf))
    ranks = {client: rank for rank, client in enumerate(sorted(worth, key=lambda client: worth[client]), 1)}
    kinds = list(KINDS)

    def order(path: Path) -> tuple[float, int, str]:
        client, kind = _client_and_kind(path, worth)
        return ranks.get(client, len(ranks) + 1), kinds.index(kind) if kind in kinds else len(kinds), path.name

    found = []
    for path in sorted(paths, key=order)[:most]:
        client, kind = _client_and_kind(path, worth)
        note = ""
        if client in ranks and math.isfinite(worth[client]):
            note = f"mouth {worth[client]:.1f} dB, number {ranks[client]} of {len(ranks)} clients from the worst"
        data = ""
        try:
            if (size := path.stat().st_size) > LARGEST_VIDEO:
                note = f"{size / 1e6:.1f} MB, too large for the page: {path}"
            else:
                data = _data_uri(path)
        except OSError as error:
            note = f"{path} can't be read: {error.strerror or error}"
        title = f"{client}: {KINDS[kind]}" if client and kind in KINDS else path.stem
        found.append(EmbeddedVideo(title, data, note))
    return found


def _client_and_kind(path: Path, worth: Mapping[str, float]) -> tuple[str, str]:
    """The client whose name begins the file's, the longest that fits, and the rest; empty for a file of no client's."""
    fitting = [client for client in worth if path.stem.startswith(f"{client}-")]
    client = max(fitting, key=len, default="")
    return client, path.stem.removeprefix(f"{client}-") if client else ""


def picture_uri(path: Path) -> str:
    """A picture as a page needs it: JPEG, at most `LARGEST_WIDTH` wide."""
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ArtifactError(f"report: {path} is no picture; run `fedtalk test` again to make it anew")
    factor = LARGEST_WIDTH / picture.shape[1]
    if factor < 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    _, made = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return f"data:image/jpeg;base64,{base64.b64encode(made.tobytes()).decode()}"


def _data_uri(path: Path) -> str:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
