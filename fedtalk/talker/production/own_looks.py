"""What a recording itself shows of how its person's mouth looks, before other speech is put into it."""

from __future__ import annotations

import itertools

import numpy as np

from fedtalk.data.clip import FRAME_RATE, Reference
from fedtalk.data.lips import OPENEST
from fedtalk.talker.mouth_looks import MouthLooks, sums_of
from fedtalk.talker.production.recording import Recording
from fedtalk.talker.puppet import Puppet
from fedtalk.talker.quality import mouth_probe

LONGEST = 8 * FRAME_RATE
"""Frames that are looked at."""
LEAST = 2 * FRAME_RATE
"""Fewer tell too little."""
EVERY = 2
"""Of them every second one: neighbours are alike."""


def looks_in(recording: Recording, reference: Reference) -> MouthLooks | None:
    """Looks (`fedtalk.talker.mouth_looks`) by the first eight seconds of a recording; its sound may be another's.

    Returns:
        None where the face is seen for less than two seconds.
    """
    played = itertools.islice(enumerate(recording.each_40_ms(min(recording.frames, LONGEST))), 0, None, EVERY)
    looked_at = ((index, shown.frame, recording.look(shown.frame.seconds)) for index, shown in played)
    faces = [(index, *recording.cut_out(frame, look)) for index, frame, look in looked_at if look is not None]
    if len(faces) * EVERY < LEAST:
        return None
    indices, frames, eyes = (np.stack(column) for column in zip(*faces, strict=True))
    return by_seconds(reference, indices, frames, eyes)


def by_seconds(reference: Reference, indices: np.ndarray, frames: np.ndarray, eyes: np.ndarray) -> MouthLooks | None:
    """Looks of one recording by how far the lips are seen to be open; each second is foretold from the others, and they are taken
    as far as that would have helped.

    Args:
        reference: the picture that is moved.
        indices: (F,) the frames' numbers in the recording, rising; each stands for `EVERY` of them.
        frames: (F, H, W, 3) uint8.
        eyes: (F, 2, 2) pixels.
    """
    body, seconds = Puppet(reference), indices // FRAME_RATE
    opening = OPENEST * mouth_probe().measure(frames, body.mouths(eyes), eyes)
    lips = np.stack([opening, np.zeros_like(opening)], 1)
    parts = [
        sums_of(body.moved(eyes[part], lips[part]), frames[part], eyes[part], lips[part])
        for part in (seconds == second for second in np.unique(seconds))
    ]
    return MouthLooks.fitted([EVERY * part for part in parts])
