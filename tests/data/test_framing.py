"""Moving a picture so that its eyes come to lie where they are elsewhere."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from heads import dots, draw, points_of

from fedtalk.data.framing import align, crop, framing, move, share_outside, similarity_transform
from fedtalk.errors import ArtifactError

SIZE = 64


def _dots(eyes: np.ndarray) -> np.ndarray:
    """A black picture with a white disc of radius 3 at each eye."""
    y, x = np.mgrid[:SIZE, :SIZE]
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    for ex, ey in eyes:
        picture[(x - ex) ** 2 + (y - ey) ** 2 <= 9] = 255
    return picture


def _centre(picture: np.ndarray, near: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    weight = picture[..., 0] * ((x - near[0]) ** 2 + (y - near[1]) ** 2 < 64.0)
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


def test_the_transform_is_the_least_squares_similarity() -> None:
    generator = np.random.default_rng(0)
    source = generator.normal(size=(5, 2))
    angle, scale, shift = 0.7, 2.5, np.array([3.0, -1.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(
        move(similarity_transform(source, source @ turn.T + shift), source), source @ turn.T + shift
    )
    target = generator.normal(size=(5, 2))  # no exact solution: compare with a general solver
    rows = np.concatenate(
        [
            np.stack([source[:, 0], -source[:, 1], np.ones(5), np.zeros(5)], 1),
            np.stack([source[:, 1], source[:, 0], np.zeros(5), np.ones(5)], 1),
        ]
    )
    a, b, x, y = np.linalg.lstsq(rows, target.T.reshape(-1), rcond=None)[0]
    np.testing.assert_allclose(similarity_transform(source, target), [[a, -b, x], [b, a, y]])


def test_the_eyes_arrive_where_they_are_asked() -> None:
    eyes = np.array([[22.0, 28.0], [42.0, 26.0]])
    target = np.array([eyes, eyes + np.array([5, -4]), [[20.0, 22.0], [44.0, 30.0]], [[27.0, 33.0], [39.0, 33.0]]])
    moved = align(_dots(eyes), eyes, target)
    assert moved.shape == (4, SIZE, SIZE, 3) and moved.dtype == np.uint8
    for picture, wanted in zip(moved, target, strict=True):
        for point in wanted:
            np.testing.assert_allclose(_centre(picture, point), point, atol=0.3)


def test_onto_its_own_eyes_a_picture_is_itself() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    eyes = np.array([[22.0, 28.0], [42.0, 26.0]])
    assert np.abs(align(picture, eyes, eyes[None])[0].astype(int) - picture).max() <= 1


def test_the_border_is_repeated_and_not_black() -> None:
    picture = np.full((SIZE, SIZE, 3), 200, np.uint8)
    eyes = np.array([[22.0, 28.0], [42.0, 28.0]])
    assert (align(picture, eyes, (eyes + 20)[None]) == 200).all()


def test_eyes_on_one_point_are_refused() -> None:
    with pytest.raises(ArtifactError, match="eyes lie on one point"):
        align(np.zeros((SIZE, SIZE, 3), np.uint8), np.full((2, 2), 30.0), np.zeros((1, 2, 2)))


def test_large_faces_are_averaged_down_not_skipped() -> None:
    """A checkerboard finer than the crop's pixels must come out grey, wherever it lies."""
    board = np.indices((1200, 1200)).sum(axis=0) % 2 * 255
    picture = np.repeat(board[..., None].astype(np.uint8), 3, axis=2)
    transform = framing(np.array([[[500.0, 500.0], [640.0, 503.0]]]), 64)
    cut = crop(picture, transform, 64).astype(int)
    assert np.abs(cut - 127).max() < 40
    assert cut.std() < 15


@pytest.mark.parametrize("between_eyes", [36.0, 140.0, 400.0])
def test_what_is_cut_out_lies_where_the_transform_says(between_eyes: float) -> None:
    """At every scale: no half pixel may be lost where a face is averaged down."""
    head = (600.0, 500.0, between_eyes, 8.0)
    eyes, mouth = points_of(head)
    transform = framing(eyes[None], 64)
    frame = crop(draw(head, height=1100, width=1200), transform, 64)
    seen = np.concatenate([dots(frame, channel) for channel in range(3)])
    np.testing.assert_allclose(seen, move(transform, np.stack([*eyes, mouth])), atol=0.12)


def test_share_outside_matches_a_count_of_pixels() -> None:
    transform = framing(np.array([[[20.0, 60.0], [60.0, 70.0]]]), 64)
    marked = cv2.warpAffine(np.ones((120, 100), np.float32), transform, (64, 64), flags=cv2.INTER_NEAREST)
    assert share_outside(transform, 64, 100, 120) == pytest.approx(1 - marked.mean(), abs=0.03)
    assert share_outside(framing(np.array([[[480.0, 500.0], [520.0, 500.0]]]), 64), 64, 1000, 1000) == 0


def test_moving_points_back_and_forth() -> None:
    eyes = np.array([[[30.0, 40.0], [70.0, 52.0]]])
    transform = framing(eyes, 64)
    inverse = cv2.invertAffineTransform(transform)
    np.testing.assert_allclose(move(inverse, move(transform, eyes)), eyes)
