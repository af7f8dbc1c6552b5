"""The visible mark: words in a corner of the picture that say that it was generated."""

from __future__ import annotations

import cv2
import numpy as np

WORDS = "AI-generated"
HEIGHT = 0.035
"""Height of capital letters over the shorter side of the picture; at least `LEAST` pixels."""
LEAST = 7
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_mark(frame: np.ndarray) -> np.ndarray:
    """The picture with `WORDS` at the lower right, white on a dark band, so that they can be read on anything.

    Args:
        frame: (H, W, 3) uint8.

    Returns:
        (H, W, 3) uint8, a new array.
    """
    height, width = frame.shape[:2]
    letters = max(LEAST, round(HEIGHT * min(height, width)))
    scale = cv2.getFontScaleFromHeight(FONT, letters)
    (text, _), _ = cv2.getTextSize(WORDS, FONT, scale, 1)
    if text > width - 4:  # the words go before their size
        scale *= (width - 4) / text
        text = width - 4
    margin = letters // 2
    left, bottom = max(0, width - text - 2 * margin), height - margin
    marked = frame.copy()
    band = marked[max(0, bottom - letters - margin) :, left:]
    band[:] = band // 4
    thickness = max(1, round(letters / 12))
    cv2.putText(marked, WORDS, (left + margin // 2, bottom), FONT, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    return marked
