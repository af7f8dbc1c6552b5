"""What one person's mouth looks like beside the puppet's, in closed form from seconds of video.

    added(x) = B^T x,    x = (1, opening, width) of the lips,    B = (sum x x^T + L)^-1 sum x r^T

x: when learned, the opening as seen, since one that is heard wrong would teach lips that hardly move (errors in variables: the
slope of a regression on a noisy x is too small); when drawn, the opening as heard. The width is as heard in both. r: what is
missing in the puppet, pixel by pixel, in a window that follows the eyes; L: a diagonal ridge, that is how many frames a row of B
is doubted by. The first row is what is always missing (how the lips of its pictures were measured, their light); the
others are how this person's lips, teeth and chin follow speech. Of several clips each is foretold from the others, and the first
row and the others are taken by the shares that would have been best there: none where recordings don't resemble each other
(cross-validated shrinkage). What is always missing in one recording is mostly wrong in another, so of a single clip only what
follows speech is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from safetensors.numpy import load, save
from scipy.optimize import lsq_linear

from fedtalk.data.framing import similarity_transform

WIDE, HIGH, UNIT = 56, 48, 28
"""Size of the window, and distance between the eyes, in its pixels."""
DROP = 1.05
"""Where the middle of the window is below the eyes, in distances between them."""
EDGE = 0.4
"""Share of the window's reach over which what is added fades out."""
OPENING, WIDTH = 0.1, 0.05
"""Units of opening and width in x: about their deviations in speech."""
DOUBT = (20.0, 20.0, 20.0)
"""Diagonal of L, in frames; chosen on eight public people (``scripts/looks_table.py``)."""
MOST = 96.0
"""Grey levels beyond which nothing is added."""
ROWS = len(DOUBT)
_EYES = np.array([[(WIDE - UNIT) / 2, HIGH / 2 - DROP * UNIT], [(WIDE + UNIT) / 2, HIGH / 2 - DROP * UNIT]])


@dataclass(frozen=True)
class MouthLooks:
    """A person's B."""

    coefficients: np.ndarray
    """(3, HIGH, WIDE, 3) float32: grey levels by row of x."""

    @classmethod
    def fitted(cls, sums: Sequence[np.ndarray]) -> MouthLooks | None:
        """From `sums_of` a person's clips, or of seconds of one recording; None where they say nothing."""
        known = [one for one in sums if one.size]
        if not known:
            return None
        parts = np.asarray(known, np.float64)
        always, following = _shares(parts) if len(parts) > 1 else (0.0, 1.0)
        solved = _solved(parts.sum(0)) * np.array([[always], [following], [following]])
        return cls(solved.reshape(ROWS, HIGH, WIDE, 3).astype(np.float32))

    @classmethod
    def blended(cls, people: Iterable[tuple[MouthLooks | None, float]]) -> MouthLooks | None:
        """Several people's, weighted as their adapters are."""
        parts = [weight * looks.coefficients for looks, weight in people if looks is not None]
        return cls(np.asarray(np.sum(parts, 0), np.float32)) if parts else None

    def added(self, pictures: np.ndarray, eyes: np.ndarray, lips: np.ndarray) -> np.ndarray:
        """Puppets as this person's.

        Args:
            pictures: (F, H, W, 3) uint8.
            eyes: (F, 2, 2), where their eyes are, in pixels.
            lips: (F, 2), opening and width as heard.

        Returns:
            (F, H, W, 3) uint8.
        """
        missing = np.clip(np.tensordot(_rows(lips), self.coefficients, 1), -MOST, MOST) * _fading()
        height, width = pictures.shape[1:3]
        made = []
        for picture, one, points in zip(
            pictures, missing.astype(np.float32), np.asarray(eyes, np.float64), strict=True
        ):
            back = cv2.warpAffine(
                one, similarity_transform(points, _EYES), (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            )
            made.append(np.clip(np.round(picture + back), 0, 255).astype(np.uint8))
        return np.stack(made)

    def to_bytes(self) -> bytes:
        """As an adapter's folder holds them, in half precision."""
        return save({"coefficients": self.coefficients.astype(np.float16)})

    @classmethod
    def from_bytes(cls, stored: bytes) -> MouthLooks:
        """What `to_bytes` gave.

        Raises:
            LookupError, ValueError, SafetensorError: something else, or numbers that aren't finite.
        """
        coefficients = load(stored)["coefficients"].astype(np.float32)
        if coefficients.shape != (ROWS, HIGH, WIDE, 3) or not np.isfinite(coefficients).all():
            raise ValueError(
                f"mouth looks: expected ({ROWS}, {HIGH}, {WIDE}, 3) finite numbers, got {coefficients.shape}"
            )
        return cls(coefficients)


def sums_of(puppets: np.ndarray, frames: np.ndarray, eyes: np.ndarray, lips: np.ndarray) -> np.ndarray:
    """What a clip adds to its person's sums.

    Args:
        puppets: (F, H, W, 3) uint8, moved to ``lips``.
        frames: (F, H, W, 3) uint8, the truth.
        eyes: (F, 2, 2) pixels.
        lips: (F, 2), opening as seen and width as heard.

    Returns:
        (3, 3 + HIGH WIDE 3) float32: sum x x^T beside sum x r^T.
    """
    missing = np.stack([
        cv2.warpAffine(
            frame.astype(np.float32) - picture, similarity_transform(points, _EYES), (WIDE, HIGH), flags=cv2.INTER_LINEAR
        )
        for picture, frame, points in zip(puppets, frames, np.asarray(eyes, np.float64), strict=True)
    ])  # fmt: skip
    rows = _rows(lips)
    return (rows.T @ np.concatenate([rows, missing.reshape(len(rows), -1)], 1)).astype(np.float32)


def _solved(total: np.ndarray) -> np.ndarray:
    """(3, HIGH WIDE 3): B."""
    return np.linalg.solve(total[:, :ROWS] + np.diag(DOUBT), total[:, ROWS:])


def _shares(parts: np.ndarray) -> tuple[float, float]:
    """Shares (s, t) in [0, 1] of B's first row b and of its others C, at which clips are foretold best from the others: of the
    least sum |r - s b - t C^T x|^2 over them."""
    total, weight = parts.sum(0), np.repeat(_fading().reshape(-1) ** 2, 3)
    products, like = np.zeros((2, 2)), np.zeros(2)
    for own in parts:
        foretold = np.zeros((2, *own[:, ROWS:].shape))
        others = _solved(total - own)
        foretold[0, 0], foretold[1, 1:] = others[0], others[1:]
        like += np.einsum("krp,rp,p->k", foretold, own[:, ROWS:], weight)
        products += np.einsum("krp,rq,lqp,p->kl", foretold, own[:, :ROWS], foretold, weight, optimize=True)
    lengths = np.sqrt(products.diagonal())
    if not lengths.any():
        return 0.0, 0.0
    # Least squares within bounds, of the normal equations' square root.
    values, vectors = np.linalg.eigh(products)
    roots = np.sqrt(np.clip(values, 1e-9 * values.max(), None))
    found = lsq_linear(roots[:, None] * vectors.T, (vectors.T @ like) / roots, (0, 1)).x
    always, following = np.where(lengths > 0, found, 0.0)
    return float(always), float(following)


def _rows(lips: np.ndarray) -> np.ndarray:
    """(F, 3): x."""
    return np.stack([np.ones(len(lips)), lips[:, 0] / OPENING, lips[:, 1] / WIDTH], 1)


def _fading() -> np.ndarray:
    """(HIGH, WIDE, 1): 1 in the middle of the window, 0 at its border."""
    x = (np.arange(WIDE) - WIDE / 2)[None] / (WIDE / 2)
    y = (np.arange(HIGH) - HIGH / 2)[:, None] / (HIGH / 2)
    return np.clip((1 - np.sqrt(x**4 + y**4)) / EDGE, 0, 1)[..., None]
