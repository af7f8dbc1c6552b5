"""Drawn heads whose eyes and mouth are coloured dots, and a small finder of our own that sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from fedtalk.data.choosing import Track, choose_face
from fedtalk.data.faces import Face
from fedtalk.data.tracking import follow_faces
from fedtalk.data.video_writer import VideoWriter

Head = tuple[float, float, float, float]
"""x and y of the midpoint between the eyes, distance between them, roll in degrees."""


def points_of(head: Head) -> tuple[np.ndarray, np.ndarray]:
    x, y, distance, roll = head
    cosine, sine = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    turn = distance * np.array([[cosine, -sine], [sine, cosine]])
    points = np.array([[-0.5, 0], [0.5, 0], [0, 1.1]]) @ turn.T + [x, y]
    return points[:2], points[2]


def draw(*heads: Head, height: int = 180, width: int = 240) -> np.ndarray:
    """Grey, with a white mark at (60, 60) of the background; per head a red and a green eye and a blue mouth."""
    picture = np.full((height, width, 3), 90, np.uint8)
    picture[55:66, 55:66] = 255
    for head in heads:
        eyes, mouth = points_of(head)
        for point, colour in zip([*eyes, mouth], [(230, 0, 0), (0, 230, 0), (0, 0, 230)], strict=True):
            centre = tuple(round(float(value) * 16) for value in point)
            cv2.circle(picture, centre, round(head[2] * 16 / 6), colour, -1, shift=4)
    return picture


def dots(picture: np.ndarray, channel: int, least: float = 150) -> np.ndarray:
    """(N, 2) centres of the dots of one colour, from left to right."""
    others = np.delete(picture.astype(int), channel, axis=2).max(axis=2)
    strength = np.clip(picture[..., channel].astype(int) - others - 40, 0, None).astype(np.float32)
    count, labels = cv2.connectedComponents((strength > 0).astype(np.uint8))
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
    found = []
    for label in range(1, count):
        weight = strength * (labels == label)
        if weight.sum() > least:
            found.append([(weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()])
    return np.array(sorted(found)).reshape(-1, 2)


class DotFinder:
    """Sees the heads of `draw`."""

    name = "dots"

    def __init__(self, opening: Callable[[int], float] | None = None) -> None:
        self.calls = 0
        self._opening = opening

    def find(self, frame: np.ndarray) -> list[Face]:
        opening = None if self._opening is None else self._opening(self.calls)
        self.calls += 1
        found = [dots(frame, channel) for channel in range(3)]
        faces = []
        for left, right, mouth in zip(*found, strict=False):
            reach = 1.2 * np.linalg.norm(right - left)
            box = np.array([*((left + right) / 2 - reach), *((left + right) / 2 + reach)])
            faces.append(Face(box, np.stack([left, right]), mouth, 1.0, opening=opening))
        return faces


def sine(frames: int) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 300 * np.arange(frames * 640) / 16_000)).astype(np.float32)


def record(path: Path, pictures: list[np.ndarray] | Iterator[np.ndarray], audio: np.ndarray | None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, audio=audio) as writer:
        for picture in pictures:
            writer.write(picture)
    return path


def lively(*heads: Head, count: int) -> list[np.ndarray]:
    """Heads that stand still but for their chins: a picture without any motion is no video."""
    pictures = []
    for index in range(count):
        picture = draw(*heads)
        for head in heads:
            x, y = points_of(head)[1]
            half = head[2] * (0.15 + 0.1 * (index % 3))
            cv2.rectangle(
                picture,
                (int(x - half), int(y + head[2] * 0.22)),
                (int(x + half), int(y + head[2] * 0.3)),
                (30,) * 3,
                -1,
            )
        pictures.append(picture)
    return pictures


def still(count: int, head: Head = (120, 80, 36, 0)) -> list[np.ndarray]:
    return lively(head, count=count)


def track_face(frames: list[np.ndarray] | Iterator[np.ndarray], finder: object, **options: int) -> Track:
    return choose_face(follow_faces(frames, finder, **options), None)  # type: ignore[arg-type]


class Blinking(DotFinder):
    """Misses every face in some of its looks."""

    def __init__(self, missed: range) -> None:
        super().__init__()
        self._missed = missed

    def find(self, frame: np.ndarray) -> list[Face]:
        found = super().find(frame)
        return [] if self.calls - 1 in self._missed else found
