"""Which seconds of a person teach most: varied speech, lips that move, several views.

After the finding that a few well-chosen seconds of a person do as well as minutes (arXiv 2511.07940): clips are taken one
by one, each time the one that adds most that the chosen ones do not have.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from fedtalk.data.clip import SAMPLES_PER_FRAME, Clip

SPEECH, LIPS, VIEW = 12, 1, 2
"""Numbers that describe a clip: shape of its spectrum, amplitude of the lips, turn and tilt of the head."""


def describe(clip: Clip) -> np.ndarray:
    """What a clip shows: (15,) float64.

    Twelve cepstral coefficients averaged over the loud half of its frames, the standard deviation of the lips' opening (of
    the mouth's brightness where it is unknown), and turn and tilt: where the mouth lies to the eyes.
    """
    frames = clip.audio.reshape(-1, SAMPLES_PER_FRAME).astype(np.float64)
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(SAMPLES_PER_FRAME))) ** 2
    edges = np.unique(np.geomspace(4, spectrum.shape[1] - 1, 25).astype(int))
    bands = np.log(np.stack([spectrum[:, a:b].sum(1) for a, b in itertools.pairwise(edges)], 1) + 1e-8)
    loud = bands[bands.mean(1) >= np.median(bands.mean(1))]
    basis = np.cos(np.pi / bands.shape[1] * np.outer(np.arange(1, SPEECH + 1), np.arange(bands.shape[1]) + 0.5))
    cepstrum = basis @ loud.mean(0)
    across = clip.eyes[:, 1] - clip.eyes[:, 0]
    distance = np.maximum(np.linalg.norm(across, axis=1), 1e-6)
    below = clip.mouth - clip.eyes.mean(1)
    turn = (below * across).sum(1) / distance**2
    tilt = (below[:, 1] * across[:, 0] - below[:, 0] * across[:, 1]) / distance**2
    return np.concatenate([cepstrum, [_lips(clip)], [turn.mean(), tilt.mean()]])


def most_informative(descriptions: np.ndarray) -> np.ndarray:
    """How much each of a person's clips is worth.

    Greedy choice: first the clip whose lips move most, then always the one farthest from all chosen (in standard deviations
    of each group of numbers), with an equal say for its lips.

    Args:
        descriptions: (N, 15), see `describe`.

    Returns:
        (N,) float64 in (0, 1], highest first to be chosen.

    >>> most_informative(np.zeros((1, 15))).tolist()
    [1.0]
    """
    count = len(descriptions)
    spread = np.maximum(descriptions.std(axis=0), 1e-9)
    scaled = (descriptions - descriptions.mean(axis=0)) / spread
    scaled[:, :SPEECH] /= np.sqrt(SPEECH)  # speech as a whole weighs as much as the view as a whole
    scaled[:, SPEECH + LIPS :] /= np.sqrt(VIEW)
    lips = scaled[:, SPEECH]
    places = np.delete(scaled, SPEECH, axis=1)
    worth = np.zeros(count)
    nearest = np.full(count, np.inf)
    for rank in range(count):
        gain = lips if rank == 0 else nearest + lips
        chosen = int(np.argmax(np.where(worth > 0, -np.inf, gain)))
        worth[chosen] = 1 - rank / count
        nearest = np.minimum(nearest, np.linalg.norm(places - places[chosen], axis=1))
    return worth


def worth_of(clips: Sequence[tuple[tuple[str, str], Clip]]) -> dict[tuple[str, str], float]:
    """`most_informative` of named clips of one person."""
    worth = most_informative(np.stack([describe(clip) for _, clip in clips]))
    return {name: float(value) for (name, _), value in zip(clips, worth, strict=True)}


def _lips(clip: Clip) -> float:
    if clip.openness is not None:
        return float(clip.openness.std())
    side = max(2, clip.size // 12)
    x, y = (int(value) for value in np.clip(np.median(clip.mouth, axis=0), side, clip.size - side - 1))
    region = clip.frames[:, y - side : y + side, x - side : x + side].mean(axis=(1, 2, 3))
    return float(region.std() / 255)
