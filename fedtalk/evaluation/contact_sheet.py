"""A contact sheet: what was generated below what is true, frame by frame, in one picture."""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np

from fedtalk.errors import ArtifactError
from fedtalk.storage import atomic_path

Row = tuple[str, np.ndarray]
"""A label and its frames, (F, H, W, 3) uint8 RGB."""

LARGE = 192
"""Pixels that frames are enlarged to at most by default; a sheet of frames of 128 is thus a few MB."""
_MARGIN, _GAP, _HEADER = 10, 2, 26
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.45
_INK, _PAPER, _FAINT = (20, 20, 20), (255, 255, 255), (110, 110, 110)


def contact_sheet(
    groups: Sequence[tuple[str, Sequence[Row]]],
    path: str | os.PathLike[str],
    *,
    columns: int = 10,
    every: int | None = None,
    magnify: int | None = None,
) -> None:
    """Write a PNG with a block of rows for each group, such as a speaker, all columns of a block at the same instants.

    Args:
        groups: (title, rows) of each block; rows of one block have the same size and number of frames.
        path: the PNG; written atomically.
        columns: frames of a row.
        every: frames between columns; by default spread over the whole clip.
        magnify: whole factor by which frames are enlarged, bicubic; by default as far as they stay within 192 pixels.

    Raises:
        ArtifactError: no rows, or rows that don't belong together.
        OutputError: the file can't be written.
    """
    if not groups or columns < 1 or (magnify is not None and magnify < 1) or (every is not None and every < 1):
        raise ArtifactError(
            f"contact sheet: expected groups, and columns, every and magnify of at least 1, got {len(groups)} groups, "
            f"{columns}, {every} and {magnify}"
        )
    labels = [label for _, rows in groups for label, _ in rows]
    label_width = max((_text_width(label) for label in labels), default=0) + 2 * _MARGIN
    blocks = [_block(title, rows, columns, every, magnify, label_width) for title, rows in groups]
    width = max(block.shape[1] for block in blocks)
    sheet = np.concatenate([_widen(block, width) for block in blocks])
    encoded, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    assert encoded, "OpenCV encodes any uint8 picture as PNG"
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def sample_frames(count: int, columns: int, every: int | None) -> np.ndarray:
    """Which frames of a clip are shown.

    >>> sample_frames(20, 4, every=2).tolist(), sample_frames(9, 3, every=None).tolist()
    ([0, 2, 4, 6], [0, 4, 8])
    """
    if every is None:
        return np.unique(np.linspace(0, count - 1, min(columns, count)).round().astype(int))
    return np.arange(0, count, every)[:columns]


def _block(
    title: str, rows: Sequence[Row], columns: int, every: int | None, magnify: int | None, label_width: int
) -> np.ndarray:
    _check(title, rows)
    chosen = sample_frames(len(rows[0][1]), columns, every)
    sides = rows[0][1].shape[1:3]
    factor = magnify or max(1, LARGE // max(sides))
    height, width = (factor * side for side in sides)
    block = np.full(
        (_HEADER + len(rows) * (height + _GAP) + _MARGIN, label_width + len(chosen) * (width + _GAP) + _MARGIN, 3),
        _PAPER,
        np.uint8,
    )
    _write(block, title, _MARGIN, _HEADER - 9, _INK, thickness=2)
    for column, frame in enumerate(chosen):
        left = label_width + column * (width + _GAP)
        text = f"{frame}"
        if left > _MARGIN + _text_width(title, 2) + _GAP:  # a long title takes the place of the first numbers
            _write(block, text, left + (width - _text_width(text)) // 2, _HEADER - 9, _FAINT)
    for number, (label, frames) in enumerate(rows):
        top = _HEADER + number * (height + _GAP)
        _write(block, label, _MARGIN, top + height // 2 + 5, _INK)
        for column, frame in enumerate(chosen):
            left = label_width + column * (width + _GAP)
            large = cv2.resize(np.ascontiguousarray(frames[frame]), (width, height), interpolation=cv2.INTER_CUBIC)
            block[top : top + height, left : left + width] = large
    return block


def _check(title: str, rows: Sequence[Row]) -> None:
    shapes = {frames.shape for _, frames in rows}
    if len(shapes) != 1 or any(frames.dtype != np.uint8 for _, frames in rows):
        raise ArtifactError(
            f"contact sheet, group {title!r}: expected rows (F, H, W, 3) uint8 of one shape, "
            f"got {[(label, frames.shape, str(frames.dtype)) for label, frames in rows]}"
        )
    (shape,) = shapes
    if len(shape) != 4 or shape[0] == 0 or shape[3] != 3:
        raise ArtifactError(f"contact sheet, group {title!r}: expected frames (F, H, W, 3), got {shape}")


def _text_width(text: str, thickness: int = 1) -> int:
    return int(cv2.getTextSize(text, _FONT, _FONT_SCALE, thickness)[0][0])


def _write(
    picture: np.ndarray, text: str, left: int, baseline: int, colour: tuple[int, int, int], thickness: int = 1
) -> None:
    cv2.putText(picture, text, (left, baseline), _FONT, _FONT_SCALE, colour, thickness, cv2.LINE_AA)


def _widen(block: np.ndarray, width: int) -> np.ndarray:
    return np.pad(block, ((0, 0), (0, width - block.shape[1]), (0, 0)), constant_values=255)
