"""Putting faces back: against the transforms' algebra, and against the crop that they were cut out by."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fedtalk.data.framing import crop, framing, move
from fedtalk.talker.masks import lower_face
from fedtalk.talker.production.paste import after, inverse, paste_frame, paste_mouth

EYES = np.array([[140.0, 120.0], [196.0, 128.0]])


def _picture() -> np.ndarray:
    """Smooth, so that going through a smaller crop loses little."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    return cv2.resize(noise, (320, 300), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("size", [96, 200, 500])
def test_a_crop_put_back_gives_the_picture(size: int) -> None:
    """From a frame that is smaller, as large or larger than the face in the picture."""
    picture, transform = _picture(), framing(EYES[None], size)
    face = crop(picture, transform, size).astype(np.float32)
    for made in (
        paste_mouth(picture, face, inverse(transform), EYES),
        paste_frame(picture, face, inverse(transform)),
    ):
        difference = np.abs(made.astype(int) - picture)
        assert difference.mean() < 1.0 and difference.max() < 24


def test_only_the_lower_face_changes_and_its_border_is_soft() -> None:
    picture = np.full((320, 320, 3), 60, np.uint8)
    transform = framing(EYES[None], 64)
    made = paste_mouth(picture, np.full((64, 64, 3), 200, np.float32), inverse(transform), EYES)
    hidden, alpha = (one[0, 0].numpy() for one in lower_face(EYES[None] + 0.5, 320))
    assert np.array_equal(made[hidden == 0], picture[hidden == 0])
    np.testing.assert_allclose(made[..., 0], 60 + 140 * alpha, atol=1)
    assert np.abs(np.diff(made[..., 0].astype(int), axis=0)).max() < 40


def test_transforms_compose_and_invert() -> None:
    first, second = framing(EYES[None], 64), framing(EYES[None] + 5, 90)
    points = np.random.default_rng(1).uniform(0, 300, (7, 2))
    np.testing.assert_allclose(move(after(second, first), points), move(second, move(first, points)))
    np.testing.assert_allclose(move(inverse(first), move(first, points)), points)


@pytest.mark.parametrize("shift", [(-400, 0), (150, 0), (0, 500)])
def test_a_face_that_lies_partly_or_wholly_outside_changes_what_is_inside(shift: tuple[int, int]) -> None:
    eyes = EYES + np.array(shift)
    picture = np.full((320, 320, 3), 60, np.uint8)
    made = paste_mouth(picture, np.full((64, 64, 3), 200, np.float32), inverse(framing(eyes[None], 64)), eyes)
    assert made.shape == picture.shape
    assert np.array_equal(made, picture) == (shift != (150, 0))
