"""What the face looks like: layers of smooth shapes, drawn for all frames of a clip at once.

Shape suffixes: F frames, H and W the picture. Coordinates ``u`` (right) and ``v`` (down) are in inter-ocular distances
from the point between the eyes, in the head's own frame, so that every part follows the head's motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedtalk.data.synthtalk.speaker import Colour, Look

EYE_DISTANCE = 0.28
"""Distance between the eyes, as a share of the picture's width, at scale 1."""
EYE_LINE = (0.5, 0.42)
"""Place of the point between the eyes in the picture, as shares of width and height, at rest."""
MOUTH_DROP = 1.05
"""Distance of the mouth below the eyes in inter-ocular distances, before the nose's length scales it."""


@dataclass(frozen=True)
class Motion:
    """Head motion, each (F,): shifts as shares of the picture, angles in radians, lids 1 open to 0 closed."""

    x: np.ndarray
    y: np.ndarray
    roll: np.ndarray
    yaw: np.ndarray
    scale: np.ndarray
    lids: np.ndarray
    brows: np.ndarray


class _Canvas:
    """Paints soft-edged shapes over a float picture (F, H, W, 3)."""

    def __init__(self, picture: np.ndarray, pixel: np.ndarray) -> None:
        self.picture = picture
        self.pixel = pixel  # (F, 1, 1): size of a picture's pixel in head coordinates

    def cover(self, distance: np.ndarray, softness: float = 1.0) -> np.ndarray:
        """(F, H, W) coverage in [0, 1] of the inside (negative distance) of a shape, edges about one pixel wide."""
        return np.clip(0.5 - distance / (self.pixel * softness), 0.0, 1.0)

    def paint(self, coverage: np.ndarray, colour: Colour | np.ndarray) -> None:
        """Paint where coverage isn't 0, which most shapes have in a small part of the picture."""
        rows, columns = (np.flatnonzero(coverage.any(axis)) for axis in ((0, 2), (0, 1)))
        if not len(rows):
            return
        box = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        colour = np.asarray(colour, np.float32)
        self.picture[box] += coverage[box][..., None] * (
            (colour[box] if colour.ndim > 1 else colour) - self.picture[box]
        )


def draw_face(
    look: Look, mouth: dict[str, np.ndarray], opening: float, motion: Motion, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw all frames of a clip.

    Args:
        mouth: ``openness``, ``width`` and ``teeth``, each (F,) in [0, 1].
        opening: how far this person opens the mouth, about 1.

    Returns:
        picture (F, H, W, 3) float32 in [0, 1]; eyes (F, 2, 2) and mouth centre (F, 2) in pixels, (x, y).
    """
    frames = len(motion.x)
    grid = ((np.arange(size) + 0.5) / size).astype(np.float32)
    y_HW, x_HW = np.meshgrid(grid, grid, indexing="ij")
    column = lambda track: np.asarray(track, np.float32)[:, None, None]  # noqa: E731

    canvas = _Canvas(_background(look, x_HW, y_HW, frames), column(1.0 / (size * EYE_DISTANCE * motion.scale)))

    unit = column(EYE_DISTANCE * motion.scale)
    centre_x, centre_y = column(EYE_LINE[0] + motion.x), column(EYE_LINE[1] + motion.y)
    cos, sin = column(np.cos(motion.roll)), column(np.sin(motion.roll))
    dx, dy = (x_HW - centre_x) / unit, (y_HW - centre_y) / unit
    u, v = dx * cos + dy * sin, -dx * sin + dy * cos
    yaw = column(motion.yaw)
    open_, wide, teeth = (column(mouth[name]) for name in ("openness", "width", "teeth"))

    _body(canvas, look, u, v)
    jaw_drop = 0.12 * open_ * opening
    head = _head_distance(look, u, v, jaw_drop)
    _hair_behind(canvas, look, u, v)
    light = _head(canvas, look, u, v, head)
    face_u = u - 0.6 * yaw  # features slide over the head as it turns
    _beard(canvas, look, face_u, v, head)
    _hair_front(canvas, look, u, v, head)
    _eyes(canvas, look, face_u, v, column(motion.lids), yaw)
    _brows(canvas, look, face_u, v - column(motion.brows))
    _nose(canvas, look, face_u - 0.25 * yaw, v, light)
    _mouth(canvas, look, face_u - 0.1 * yaw, v, open_ * opening, wide, teeth, light)
    if look.glasses:
        _glasses(canvas, face_u, v)

    def to_pixels(at_u: np.ndarray, at_v: np.ndarray | float) -> np.ndarray:
        flat = (EYE_DISTANCE * motion.scale) * size
        x = (EYE_LINE[0] + motion.x) * size + flat * (at_u * np.cos(motion.roll) - at_v * np.sin(motion.roll))
        y = (EYE_LINE[1] + motion.y) * size + flat * (at_u * np.sin(motion.roll) + at_v * np.cos(motion.roll))
        return np.stack([x, y], -1)

    turn = 0.6 * motion.yaw
    eyes = np.stack([to_pixels(turn - 0.5, 0.0), to_pixels(turn + 0.5, 0.0)], 1)
    return np.clip(canvas.picture, 0, 1), eyes, to_pixels(0.7 * motion.yaw, _mouth_height(look))


def _mouth_height(look: Look) -> float:
    return MOUTH_DROP * (0.6 + 0.4 * look.nose_length) + 0.02


def _ellipse(u: np.ndarray, v: np.ndarray, a: float | np.ndarray, b: float | np.ndarray) -> np.ndarray:
    """Approximate signed distance to an axis-aligned ellipse at the origin."""
    return (np.sqrt((u / a) ** 2 + (v / b) ** 2) - 1.0) * np.minimum(a, b)


def _background(look: Look, x: np.ndarray, y: np.ndarray, frames: int) -> np.ndarray:
    top, bottom = (np.array(colour, np.float32) for colour in look.background)
    picture = top + (bottom - top) * y[..., None]
    if look.stripes:
        picture = picture + look.stripes * np.sin(19 * x + 9 * y * look.jaw + 40 * look.hairline)[..., None]
    return np.repeat(picture[None].astype(np.float32), frames, 0)


def _body(canvas: _Canvas, look: Look, u: np.ndarray, v: np.ndarray) -> None:
    skin = np.array(look.skin) * 0.8
    neck = np.maximum(np.abs(u) - 0.55, 1.0 - v)
    canvas.paint(canvas.cover(neck), skin)
    canvas.paint(canvas.cover(_ellipse(u, v - 2.75, 1.7, 0.75)), look.clothes)
    canvas.paint(canvas.cover(_ellipse(u, v - 1.98, 0.5, 0.28)) * 0.9, skin)


def _head_distance(look: Look, u: np.ndarray, v: np.ndarray, jaw_drop: np.ndarray) -> np.ndarray:
    """Distance to the outline of skull and jaw; the chin sinks as the mouth opens."""
    middle = 0.28
    below = np.clip((v - middle) / look.head_height, 0, 1)
    v = v - jaw_drop * np.clip((v - 0.6) / 1.1, 0, 1)
    width = look.head_width * (1.0 - look.jaw * below**1.5)
    return _ellipse(u, v - middle, width, look.head_height * 0.92)


def _head(canvas: _Canvas, look: Look, u: np.ndarray, v: np.ndarray, head: np.ndarray) -> np.ndarray:
    skin = np.array(look.skin, np.float32)
    for side in (-1, 1):
        canvas.paint(canvas.cover(_ellipse(u - side * look.head_width * 0.98, v - 0.25, 0.16, 0.32)), skin * 0.85)
    light = 1.0 + look.light_side * u / look.head_width - 0.10 * (u / look.head_width) ** 2 - 0.06 * np.maximum(v, 0)
    light = np.clip(light, 0.45, 1.35).astype(np.float32)
    canvas.paint(canvas.cover(head), skin * light[..., None])
    blush = np.array([0.06, -0.02, -0.02], np.float32)
    for side in (-1, 1):
        glow = np.exp(-(((u - side * 0.62) / 0.3) ** 2 + ((v - 0.55) / 0.25) ** 2)) * (head < 0)
        canvas.picture += glow[..., None] * blush
    return light


def _hair_behind(canvas: _Canvas, look: Look, u: np.ndarray, v: np.ndarray) -> None:
    dark = np.array(look.hair) * 0.7
    volume = look.hair_volume
    canvas.paint(canvas.cover(_ellipse(u, v - 0.02, look.head_width * volume, look.head_height * 0.83 * volume)), dark)
    if look.long_hair:
        fall = np.maximum(np.abs(u) - look.head_width * volume * 0.98, np.maximum(0.0 - v, v - 1.75))
        canvas.paint(canvas.cover(fall, 2.0), dark)


def _hair_front(canvas: _Canvas, look: Look, u: np.ndarray, v: np.ndarray, head: np.ndarray) -> None:
    line = look.hairline + look.fringe * (u / look.head_width) ** 2 + 0.08 * look.fringe * u
    coverage = canvas.cover(v - line, 1.5) * canvas.cover(_ellipse(
        u, v - 0.02, look.head_width * look.hair_volume, look.head_height * 0.83 * look.hair_volume))  # fmt: skip
    strands = 1.0 + 0.12 * np.sin(14 * u + 3 * v)
    canvas.paint(coverage, np.array(look.hair, np.float32) * strands[..., None])


def _beard(canvas: _Canvas, look: Look, u: np.ndarray, v: np.ndarray, head: np.ndarray) -> None:
    if look.beard:
        edge = 0.72 - 0.5 * np.clip(np.abs(u) - 0.55, 0, 1)
        canvas.paint(canvas.cover(edge - v, 4.0) * canvas.cover(head) * look.beard, np.array(look.hair) * 0.8)


def _eyes(canvas: _Canvas, look: Look, u: np.ndarray, v: np.ndarray, lids: np.ndarray, yaw: np.ndarray) -> None:
    skin = np.array(look.skin)
    for side in (-1, 1):
        eu = u - side * 0.5
        width, height = 0.23 * look.eye_size, 0.125 * look.eye_size
        canvas.paint(canvas.cover(_ellipse(eu, v, width * 1.25, height * 1.6), 3.0) * 0.35, skin * 0.6)
        opened = np.maximum(height * lids, 0.012)
        inside = canvas.cover(_ellipse(eu, v, width, opened))
        canvas.paint(inside, (0.94, 0.93, 0.92))
        gaze = eu - 0.25 * yaw
        canvas.paint(inside * canvas.cover(_ellipse(gaze, v, 0.105, 0.105)), look.iris)
        canvas.paint(inside * canvas.cover(_ellipse(gaze, v, 0.05, 0.05)), (0.04, 0.04, 0.05))
        canvas.paint(inside * canvas.cover(_ellipse(gaze + 0.04, v + 0.04, 0.025, 0.025)), (1.0, 1.0, 1.0))
        lid = np.abs(_ellipse(eu, v, width, opened)) - 0.018
        canvas.paint(canvas.cover(lid) * (v < 0.02) * 0.85, skin * 0.3)


def _brows(canvas: _Canvas, look: Look, u: np.ndarray, v: np.ndarray) -> None:
    for side in (-1, 1):
        bu = (u - side * 0.5) * side
        arc = v + 0.30 + look.brow_tilt * bu * -0.5 + 0.5 * bu**2 * 0.6
        coverage = canvas.cover(_ellipse(bu, arc, 0.30, 0.045 * look.brow_weight))
        canvas.paint(coverage * 0.9, np.array(look.hair) * 0.65)


def _nose(canvas: _Canvas, look: Look, u: np.ndarray, v: np.ndarray, light: np.ndarray) -> None:
    skin = np.array(look.skin, np.float32)
    tip = 0.62 * look.nose_length
    ridge = np.exp(-((u / (0.09 * look.nose_width)) ** 2)) * np.clip((v + 0.1) / tip, 0, 1) * (v < tip)
    canvas.picture += (0.07 * ridge)[..., None] * skin
    shadow = np.exp(-(((u / (0.22 * look.nose_width)) ** 2) + ((v - tip - 0.05) / 0.07) ** 2))
    canvas.paint(0.4 * shadow, skin * 0.55)
    for side in (-1, 1):
        nostril = _ellipse(u - side * 0.10 * look.nose_width, v - tip, 0.05, 0.03)
        canvas.paint(canvas.cover(nostril) * 0.8, skin * 0.25)


def _mouth(
    canvas: _Canvas,
    look: Look,
    u: np.ndarray,
    v: np.ndarray,
    open_: np.ndarray,
    wide: np.ndarray,
    teeth: np.ndarray,
    light: np.ndarray,
) -> None:
    skin, lips = np.array(look.skin, np.float32), np.array(look.lips, np.float32)
    mv = v - _mouth_height(look) - look.mouth_tilt * u
    half = (0.27 + 0.17 * wide) * look.mouth_width
    gap = 0.40 * open_ + 0.012
    if look.moustache:
        hairs = _ellipse(u, mv + 0.17, 0.42, 0.085 + 0.05 * np.abs(u))
        canvas.paint(canvas.cover(hairs, 1.5) * look.moustache, np.array(look.hair) * 0.85)
    skew = 1.0 + look.mouth_asymmetry * u / 0.5
    arch = np.clip(1.0 - (u / half) ** 2, 0.0, 1.0) * np.clip(skew, 0.3, 1.7)
    upper, lower = -0.38 * gap * arch, 0.62 * gap * arch
    weight = 0.085 * look.lip_weight
    bow = 1.0 - 0.25 * np.exp(-((u / 0.07) ** 2))
    outline = np.maximum(upper - weight * bow * np.sqrt(arch) - mv, mv - lower - 1.15 * weight * np.sqrt(arch))
    outline = np.maximum(outline, np.abs(u) - half)
    canvas.paint(np.exp(-((u / 0.3) ** 2 + ((mv - 0.30 - 0.3 * open_) / 0.06) ** 2)) * 0.3, skin * 0.6)
    shade = light[..., None] * (1.0 + 0.15 * (mv > 0))[..., None]
    canvas.paint(canvas.cover(outline), lips * shade)
    inside = canvas.cover(np.maximum(np.maximum(upper - mv, mv - lower), np.abs(u) - half * 0.94))
    canvas.paint(inside, (0.16, 0.04, 0.05))
    tongue = canvas.cover(_ellipse(u, mv - lower, half * 0.6, 0.35 * gap + 0.02), 1.5)
    canvas.paint(inside * tongue * np.clip(open_ * 1.5, 0, 1), (0.62, 0.25, 0.27))
    upper_row = canvas.cover(mv - upper - 0.10 * (0.4 + 0.6 * teeth)) * np.clip(0.25 + open_ + teeth, 0, 1)
    tooth = np.array(look.teeth, np.float32) * np.ones_like(u)[..., None]
    if look.tooth_gap:
        tooth = tooth * (1.0 - 0.8 * np.exp(-((u / 0.035) ** 2)))[..., None]
    canvas.paint(inside * upper_row, tooth)
    canvas.paint(inside * canvas.cover(lower - 0.06 * teeth - mv) * teeth, tooth * 0.93)
    if look.mole is not None:
        canvas.paint(canvas.cover(_ellipse(u - look.mole[0], mv - look.mole[1], 0.055, 0.055)) * 0.9, skin * 0.3)


def _glasses(canvas: _Canvas, u: np.ndarray, v: np.ndarray) -> None:
    for side in (-1, 1):
        rim = np.abs(_ellipse(u - side * 0.5, v - 0.03, 0.36, 0.28)) - 0.022
        canvas.paint(canvas.cover(rim), (0.08, 0.08, 0.09))
    bridge = np.maximum(np.abs(u) - 0.14, np.abs(v + 0.02) - 0.02)
    canvas.paint(canvas.cover(bridge), (0.08, 0.08, 0.09))
