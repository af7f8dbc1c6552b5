"""A portrait's face: framed as in clips, and refused with numbers where it can't be drawn."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from fedtalk.data.faces import Face
from fedtalk.errors import FaceNotFoundError, MediaError
from fedtalk.talker.production.portrait import find_portrait


class Given:
    """Finds the faces that it was given: x, y between the eyes, and their distance."""

    name = "given"

    def __init__(self, *faces: tuple[float, float, float]) -> None:
        self._faces = faces

    def find(self, frame: np.ndarray) -> list[Face]:
        return [
            Face(
                np.array([x - d, y - d, x + d, y + 2 * d], np.float32),
                np.array([[x - d / 2, y], [x + d / 2, y]], np.float32), np.array([x, y + d], np.float32), 1.0,
            )
            for x, y, d in self._faces
        ]  # fmt: skip


def _picture() -> np.ndarray:
    return np.zeros((180, 240, 3), np.uint8)


def test_the_largest_face_is_framed_like_a_clip(caplog: pytest.LogCaptureFixture) -> None:
    found = find_portrait(_picture(), 64, Given((200, 60, 14), (100, 80, 36)))
    expected = [[0.36 * 64 - 0.5, 0.42 * 64 - 0.5], [0.64 * 64 - 0.5, 0.42 * 64 - 0.5]]
    np.testing.assert_allclose(found.reference.eyes, expected, atol=0.01)
    np.testing.assert_allclose(found.reference.mouth, [0.5 * 64 - 0.5, 0.7 * 64 - 0.5], atol=0.01)
    assert found.reference.frame.shape == (64, 64, 3)
    assert "2 faces found; taking the largest" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        find_portrait(_picture(), 64, Given((100, 80, 36)))
    assert not caplog.text


@pytest.mark.parametrize(
    ("picture", "faces", "error", "said"),
    [
        (_picture(), [], FaceNotFoundError, "240 x 180"),
        (_picture(), [(100, 80, 7)], MediaError, r"too small: 7\.0 pixels between the eyes, expected 9\.0"),
        (_picture(), [(20, 30, 36)], MediaError, r"at the border: .* lies outside the picture, at most 25% may"),
        (np.zeros((20, 20, 3), np.uint8), [], MediaError, "20 x 20 pixels"),
        (np.zeros((200, 200, 3), np.float32), [], MediaError, "uint8"),
    ],
)
def test_what_cant_be_drawn_is_refused_with_numbers(picture, faces, error, said: str) -> None:
    with pytest.raises(error, match=said):
        find_portrait(picture, 64, Given(*faces))
