"""The reference as a puppet: moved to where the eyes of a frame are, its lips and jaw moved to what is said.

The denoiser answers with a change of this picture. What speech does to the lips is geometry that holds for everybody, and is
known from speech (`fedtalk.encoders.speech_network`); how the person's lips, teeth and skin look then is what the denoiser adds.

Coordinates (x, y) are in distances between the eyes, along the line between them and downwards, from the middle of the line
between the lips.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import cv2
import numpy as np

from fedtalk.data.clip import Reference
from fedtalk.data.framing import similarity_transform
from fedtalk.data.landmarks import landmarks
from fedtalk.data.lips import ABOVE, OPENEST, Lips, measure_lips
from fedtalk.errors import ArtifactError
from fedtalk.talker.lids import Lids
from fedtalk.talker.quality import mouth_probe

REST = 0.8
"""Width of a mouth at rest, between its corners."""
LIFT = 0.3
"""Share by which the upper lip takes part in a change of the gap; the lower one does the rest."""
JAW = 0.35
"""By how much of a change of the gap the chin sinks; 0.3 in the median over 185 sentences of twelve people."""
REACH = 1.15
"""Below this depth, about where the neck begins, nothing moves."""
LARGEST = 0.45
VISIBLE = 0.05
"""From this gap on, the reference shows the inside of the mouth itself."""
MISTAKEN = 0.12
"""How far above the mouth landmarks of lips may lie; beyond, they are those of a moustache."""


class Puppet:
    """A reference picture, measured once and moved as often as it is asked for."""

    def __init__(self, reference: Reference) -> None:
        """
        Args:
            reference: the picture.

        Raises:
            ArtifactError: the two eyes of the picture are one point.
        """
        if np.linalg.norm(reference.eyes[1] - reference.eyes[0]) < 1e-3:
            raise ArtifactError(
                f"reference picture: its eyes lie on one point, {reference.eyes[0].tolist()}; expected two points"
            )
        self._reference = reference

    def moved(self, eyes: np.ndarray, lips: np.ndarray | None, closed: np.ndarray | None = None) -> np.ndarray:
        """The picture moved to other frames' eyes, lips and lids.

        Args:
            eyes: (F, 2, 2), where its eyes shall be, in pixels.
            lips: (F, 2): gap between the inner lips; width of the mouth as a deviation from its rest. None leaves them as they
                are.
            closed: (F,) how far the upper lids cover the eyes, in [0, 1]; None leaves them as they are.

        Returns:
            (F, H, W, 3) uint8; what lies outside the picture repeats its border.
        """
        reference, own, inner = self._reference, self._own, self._inner
        height, width = reference.frame.shape[:2]
        told = np.tile([own.opening, 0.0], (len(eyes), 1)) if lips is None else np.asarray(lips)
        shut = np.zeros(len(eyes)) if closed is None else np.asarray(closed)
        column, row = np.arange(width, dtype=np.float64)[None], np.arange(height, dtype=np.float64)[:, None]
        frames = []
        moves = zip(np.asarray(eyes, np.float64), np.clip(told, -LARGEST, LARGEST), shut, strict=True)
        for points, (gap, wide), lowered in moves:
            across = points[1] - points[0]
            unit = max(float(np.hypot(*across)), 1e-3)
            cos, sin = across / unit
            transform = similarity_transform(reference.eyes, points)
            at = transform[:, :2] @ own.middle + transform[:, 2]
            x = ((column - at[0]) * cos + (row - at[1]) * sin) / unit
            y = (-(column - at[0]) * sin + (row - at[1]) * cos) / unit
            from_x, from_y, painted = _source(x, y, own, max(float(gap), 0.0), float(wide) / REST)
            back = cv2.invertAffineTransform(transform)
            shift_x, shift_y = (
                unit * (from_x * cos - from_y * sin) + at[0],
                unit * (from_x * sin + from_y * cos) + at[1],
            )
            map_x = back[0, 0] * shift_x + back[0, 1] * shift_y + back[0, 2]
            map_y = back[1, 0] * shift_x + back[1, 1] * shift_y + back[1, 2]
            if lowered > 0:
                map_x, map_y = self._lids.lowered(map_x, map_y, float(lowered))
            remapped = cv2.remap(
                reference.frame, map_x.astype(np.float32), map_y.astype(np.float32), cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REPLICATE,
            )  # fmt: skip
            mixed = remapped + painted[..., None] * (inner - remapped)
            frames.append(np.clip(np.round(mixed), 0, 255).astype(np.uint8))
        return np.stack(frames)

    def mouths(self, eyes: np.ndarray) -> np.ndarray:
        """(F, 2) where the middle of its mouth lies, in pixels, by where its eyes (F, 2, 2) are."""
        transforms = (similarity_transform(self._reference.eyes, points) for points in np.asarray(eyes, np.float64))
        return np.stack([transform[:, :2] @ self._own.middle + transform[:, 2] for transform in transforms])

    @cached_property
    def _points(self) -> np.ndarray:
        return landmarks(self._reference)

    @cached_property
    def _own(self) -> Lips:
        return _measured(self._reference, self._points)

    @cached_property
    def _inner(self) -> np.ndarray:
        return _inner_colour(self._reference, self._own)

    @cached_property
    def _lids(self) -> Lids:
        return Lids(self._points)


def _measured(reference: Reference, points: np.ndarray) -> Lips:
    """The picture's lips. Landmarks find gaps in mouths that are closed where lips are drawn or made up; the probe does not.

    Where landmarks lie on a moustache, the middle is the mouth that the picture comes with, and the gap what the probe sees.
    """
    lips = measure_lips(reference, points)
    if reference.mouth is not None and _depth(reference, lips.middle) < _depth(reference, reference.mouth) - MISTAKEN:
        lips = replace(lips, middle=np.asarray(reference.mouth, np.float64), opening=OPENEST, bend=0.0)
    seen = mouth_probe().measure(reference.frame[None], lips.middle[None], np.asarray(reference.eyes)[None])[0]
    return replace(lips, opening=min(lips.opening, OPENEST * float(seen)))


def _depth(reference: Reference, point: np.ndarray) -> float:
    """How far below the eyes a point lies, in distances between them."""
    across = np.asarray(reference.eyes[1] - reference.eyes[0], np.float64)
    return float((point - reference.eyes.mean(0)) @ np.array([-across[1], across[0]]) / (across @ across))


def _source(
    x: np.ndarray, across: np.ndarray, own: Lips, after: float, wide: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each point comes from, and how far it is painted as the inside of a mouth that was closed."""
    before = own.opening
    change = after - before
    half = own.width * (1 + wide) / 2
    bent = own.bend * np.minimum(np.abs(x), 1.2 * half) ** 2 * _step(-np.abs(across), -0.5, -0.1)
    y = across - bent
    arch = np.sqrt(np.clip(1 - (x / half) ** 2, 0, 1))
    top_before, low_before = -ABOVE * before * arch, (1 - ABOVE) * before * arch
    top, low = top_before - LIFT * change * arch, low_before + (1 - LIFT) * change * arch
    # Lips follow the arch; the jaw moves as a whole and takes cheeks and chin along, less and less.
    chin = _step(y, 0.12, 0.5)
    jaw = JAW * np.exp(-np.square(np.square(x / 0.75))) * chin * (1 - _step(y, 0.75, REACH))
    below = y - change * ((1 - LIFT) * arch * (1 - chin) + jaw)
    above = y + LIFT * change * arch * _step(y, -0.45, -0.05)
    gap = np.maximum(low - top, 1e-4)
    share = np.clip((y - top) / gap, 0, 1)
    within = top_before + share * (low_before - top_before)
    from_y = np.where(y >= low, below, np.where(y <= top, above, within))
    near = np.exp(-((x / 0.7) ** 2) - (y / 0.5) ** 2)
    from_x = x * (1 + (1 / (1 + wide) - 1) * near)
    new = max(0.0, 1 - before / VISIBLE)
    edge = 0.03
    inside = np.clip((y - top) / edge, 0, 1) * np.clip((low - y) / edge, 0, 1) * (np.abs(x) < half)
    return from_x, from_y + bent, new * inside


def _step(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth between."""
    share = np.clip((value - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)


def _inner_colour(reference: Reference, own: Lips) -> np.ndarray:
    """(3,) the colour of the inside of a mouth in the picture's light: a third of the skin's, redder."""
    middle = (own.middle + reference.eyes.mean(0)) / 2
    reach = max(2, round(0.25 * float(np.linalg.norm(reference.eyes[1] - reference.eyes[0]))))
    x, y = np.clip(np.round(middle).astype(int), reach, np.array(reference.frame.shape[1::-1]) - reach - 1)
    skin = reference.frame[y - reach : y + reach + 1, x - reach : x + reach + 1].reshape(-1, 3).mean(0)
    return skin * np.array([0.38, 0.24, 0.24])
