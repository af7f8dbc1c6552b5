"""Where the lips are in a picture whose eyes are known.

Lengths are in distances between the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedtalk.data.clip import Reference


@dataclass(frozen=True)
class Lips:
    """The line between the lips, in the frame of the eyes: x along the line between them, y downwards."""

    middle: np.ndarray
    """(2,) its middle in pixels."""
    opening: float
    """Gap between the inner lips."""
    width: float
    """Between the corners of the gap."""
    bend: float
    """How far below the middle the corners lie, over the square of half the width."""


def measure_lips(reference: Reference, points: np.ndarray) -> Lips:
    """Lips of a picture that shows one face.

    Args:
        reference: the picture.
        points: (68, 2), its `fedtalk.data.landmarks.landmarks`.
    """
    eyes = np.asarray(reference.eyes, np.float64)
    across = eyes[1] - eyes[0]
    unit = max(float(np.hypot(*across)), 1e-3)
    points = points[60:68]
    right, down = across / unit, np.array([-across[1], across[0]]) / unit
    x, y = points @ right / unit, points @ down / unit
    upper, lower = y[[1, 2, 3]].mean(), y[[7, 6, 5]].mean()
    opening, width = max(0.0, lower - upper), max(0.2, x[4] - x[0])
    at_x, at_y = (x[0] + x[4]) / 2, upper + ABOVE * opening
    bend = float(np.clip(((y[0] + y[4]) / 2 - at_y) / (width / 2) ** 2, -0.6, 0.6))
    return Lips(unit * (at_x * right + at_y * down), float(opening), float(width), bend)


ABOVE = 0.35
"""Share of the gap between the inner lips that lies above the line between them when they are closed."""
OPENEST = 0.35
"""Gap between the inner lips that the mouth probe calls 1."""
