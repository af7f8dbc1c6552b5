"""Where the lips are in a picture whose eyes are known.

Lengths are in distances between the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedtalk.data.clip import Reference
from fedtalk.data.landmarks import landmarks


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


def measure_lips(reference: Reference) -> Lips:
    """Lips of a picture that shows one face.

    Raises:
        ArtifactError: dlib or its landmarks' weights are absent.
    """
    eyes = np.asarray(reference.eyes, np.float64)
    across = eyes[1] - eyes[0]
    unit = max(float(np.hypot(*across)), 1e-3)
    points = landmarks(reference)[60:68]
    right, down = across / unit, np.array([-across[1], across[0]]) / unit
    x, y = points @ right / unit, points @ down / unit
    upper, lower = y[[1, 2, 3]].mean(), y[[7, 6, 5]].mean()
    opening, width = max(0.0, lower - upper), max(0.2, x[4] - x[0])
    at_x, at_y = (x[0] + x[4]) / 2, upper + ABOVE * opening
    bend = float(np.clip(((y[0] + y[4]) / 2 - at_y) / (width / 2) ** 2, -0.6, 0.6))
    middle = unit * (at_x * right + at_y * down)
    if reference.mouth is not None and (reference.mouth - middle) @ down > MISTAKEN * unit:
        middle, bend = np.asarray(reference.mouth, np.float64), 0.0
    return Lips(middle, float(opening), float(width), bend)


MISTAKEN = 0.12
"""How far above the mouth landmarks of lips may lie; beyond, they are those of a moustache. On eight people: 0.08 at most."""
ABOVE = 0.35
"""Share of the gap between the inner lips that lies above the line between them when they are closed."""
OPENEST = 0.35
"""Gap between the inner lips that the mouth probe calls 1."""
