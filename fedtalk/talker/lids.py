"""Eyes that blink: when they do, and what a picture of a face looks like with its upper lids lower."""

from __future__ import annotations

import numpy as np

from fedtalk.data.clip import FRAME_RATE
from fedtalk.randomness import numpy_generator

PER_MINUTE = 25.0
"""Blinks a minute: mean over twelve people in 185 sentences (scripts/mouth_tracks.py: lids below 0.55 of their median)."""
COURSE = (0.25, 0.7, 1.0, 0.8, 0.4, 0.15)
"""How far the lids are closed, frame by frame: three of them half or more, as in the median of those 394 blinks."""
APART = 0.6
"""Seconds from one blink to the next at least."""
EYES = ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47))
FOLD = 0.6
"""Height of the skin above an eye that the lid is drawn from, in half widths of the eye."""
OPENEST = 0.02
"""Gap between the lids, in half widths of the eye, below which an eye of the picture is shut already."""


def blinks(frames: int, seed: int) -> np.ndarray:
    """(F,) float64 in [0, 1]: how far the lids are closed; blinks come at random, none in the first half second."""
    generator, closed = numpy_generator(seed, "lids"), np.zeros(frames)
    at = FRAME_RATE / 2
    while True:
        at += FRAME_RATE * (APART + generator.exponential(60 / PER_MINUTE - APART))
        if at >= frames:
            return closed
        course = np.array(COURSE)[: frames - int(at)]
        closed[int(at) : int(at) + len(course)] = course


class Lids:
    """Both eyes of a picture, by the landmarks of their lids."""

    def __init__(self, points: np.ndarray) -> None:
        """
        Args:
            points: (68, 2), the picture's `fedtalk.data.landmarks.landmarks`.
        """
        self._eyes = [_Eye(points[list(eye)]) for eye in EYES]

    def lowered(self, map_x: np.ndarray, map_y: np.ndarray, closed: float) -> tuple[np.ndarray, np.ndarray]:
        """Where each point comes from once the upper lids are lowered.

        Args:
            map_x: (H, W), where points come from in the picture, in pixels.
            map_y: (H, W).
            closed: share of the eyes' opening that the upper lids cover.

        Returns:
            ``map_x`` and ``map_y`` anew.
        """
        for eye in self._eyes:
            map_x, map_y = eye.lowered(map_x, map_y, closed)
        return map_x, map_y


class _Eye:
    """One eye, in half widths from its middle: x along the line between its corners, y downwards; lids are parabolas."""

    def __init__(self, points: np.ndarray) -> None:
        left, right = points[0], points[3]
        self._half = max(float(np.hypot(*(right - left))) / 2, 1e-3)
        self._right = (right - left) / (2 * self._half)
        self._down = np.array([-self._right[1], self._right[0]])
        self._middle = (left + right) / 2
        x, y = ((points - self._middle) @ axis / self._half for axis in (self._right, self._down))
        arch = 1 - np.square(x)
        self._upper, self._lower = (float((y[side] / arch[side]).mean()) for side in ([1, 2], [4, 5]))

    def lowered(self, map_x: np.ndarray, map_y: np.ndarray, closed: float) -> tuple[np.ndarray, np.ndarray]:
        if self._lower - self._upper < OPENEST:
            return map_x, map_y
        across, along = map_x - self._middle[0], map_y - self._middle[1]
        x = (across * self._right[0] + along * self._right[1]) / self._half
        y = (across * self._down[0] + along * self._down[1]) / self._half
        arch = np.clip(1 - np.square(x / 1.1), 0, None)  # corners of real eyes lie a little farther out than the points
        upper, lower = self._upper * arch, self._lower * arch
        lid = upper + closed * (lower - upper)
        top = upper - FOLD * np.sqrt(arch)
        share = (y - top) / np.maximum(lid - top, 1e-6)
        skin = (arch > 0) & (share > 0) & (share < 1)
        change = np.where(skin, top + share * (upper - top) - y, 0) * self._half
        return map_x + change * self._down[0], map_y + change * self._down[1]
