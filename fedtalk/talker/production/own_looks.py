"""What a recording itself tells of how its person's mouth looks, before other speech is put into it."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from fedtalk.data.clip import FRAME_RATE, SAMPLES_PER_FRAME, Reference
from fedtalk.data.media import audio_blocks
from fedtalk.errors import MediaError
from fedtalk.talker.batches import heard
from fedtalk.talker.generation import Generation
from fedtalk.talker.mouth_looks import MouthLooks, sums_of
from fedtalk.talker.production.recording import Recording
from fedtalk.talker.puppet import Puppet

LONGEST = 8 * FRAME_RATE
"""Frames that are looked at."""
LEAST = 2 * FRAME_RATE
"""Fewer tell too little."""
EVERY = 2
"""Of them every second one: neighbours are alike."""


def looks_in(recording: Recording, reference: Reference, generation: Generation) -> MouthLooks | None:
    """Looks (`fedtalk.talker.mouth_looks`) by a recording's own frames and sound, from its first eight seconds.

    Each second is foretold from the others, and looks are taken as far as that would have helped: hardly where the sound is
    not that of the lips.

    Returns:
        None where they can't be told: no sound, less than two seconds of the face, or a backbone that doesn't hear lips.
    """
    sound = _sound(recording)
    if sound is None:
        return None
    lips = heard(generation.backbone, list(generation.windows(torch.from_numpy(sound))))
    if lips is None:
        return None
    played = itertools.islice(enumerate(recording.each_40_ms(len(lips))), 0, None, EVERY)
    faces = [(index, *face) for index, shown in played if (face := recording.cut_out(shown)) is not None]
    if len(faces) * EVERY < LEAST:
        return None
    body, seconds = Puppet(reference), []
    for _, second in itertools.groupby(faces, key=lambda one: one[0] // FRAME_RATE):
        indices, frames, eyes = (np.stack(column) for column in zip(*second, strict=True))
        told = lips[indices]
        seconds.append(EVERY * sums_of(body.moved(eyes, told), frames, eyes, told))
    return MouthLooks.fitted(seconds)


def _sound(recording: Recording) -> np.ndarray | None:
    """(640 F,) float32 of the recording's own sound; None without any."""
    count = min(recording.frames, LONGEST)
    try:
        blocks = list(itertools.islice(audio_blocks(recording.path, SAMPLES_PER_FRAME), count))
    except MediaError:
        return None
    whole = [block for block in blocks if len(block) == SAMPLES_PER_FRAME]
    return np.concatenate(whole) if any(block.any() for block in whole) else None
