"""How a head is held while it speaks, where no video says so: eye positions that sway slowly around a picture's own."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from fedtalk.data.clip import FRAME_RATE
from fedtalk.randomness import numpy_generator

SHIFT, ROLL = 0.03, 0.018
"""Standard deviations: of the shift in distances between the eyes, of the roll in radians. Over three seconds that is 0.019
and 0.011, as in 185 sentences of twelve people."""
SECONDS = 0.6
"""How slow the sway is: standard deviation in time of the kernel that smooths it."""


def swaying_eyes(eyes: np.ndarray, frames: int, seed: int) -> np.ndarray:
    """Eye centres of a head that sways; the first frame is held as in the picture.

    Args:
        eyes: (2, 2) eye centres of the picture in pixels, (x, y).
        frames: F.
        seed: of the sway.

    Returns:
        (F, 2, 2) float32.
    """
    generator = numpy_generator(seed, "pose")
    noise = generator.standard_normal((3, frames + 8 * FRAME_RATE))
    smooth = gaussian_filter1d(noise, SECONDS * FRAME_RATE, axis=1, mode="wrap")
    # Unit variance by the kernel's own gain, so that a short clip sways no more than its share of a long one.
    smooth *= np.sqrt(2 * np.sqrt(np.pi) * SECONDS * FRAME_RATE)
    smooth = smooth[:, :frames] - smooth[:, :1]
    middle, across = eyes.mean(0), eyes[1] - eyes[0]
    distance = float(np.hypot(*across))
    turn = np.exp(1j * ROLL * smooth[2]) * complex(*across) / 2
    centre = complex(*middle) + SHIFT * distance * (smooth[0] + 1j * smooth[1])
    both = np.stack([centre - turn, centre + turn], 1)
    return np.stack([both.real, both.imag], -1).astype(np.float32)
