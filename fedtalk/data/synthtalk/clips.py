"""A clip of a SynthTalk speaker: one articulation track, drawn and spoken."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from fedtalk.data.clip import FRAME_RATE, SAMPLES_PER_FRAME, Clip
from fedtalk.data.synthtalk.articulation import draw_articulation
from fedtalk.data.synthtalk.face import Motion, draw_face
from fedtalk.data.synthtalk.speaker import Speaker
from fedtalk.data.synthtalk.voice import synthesise
from fedtalk.randomness import derive_seed, numpy_generator


def make_clip(speaker: Speaker, take: int, frames: int, size: int) -> Clip:
    """Clip number ``take`` of a speaker; the same arguments give the same bits.

    Args:
        frames: length in video frames.
        size: height and width in pixels.
    """
    generator = numpy_generator(speaker.seed, "take", speaker.group, speaker.index, take)
    person = speaker
    if speaker.fault == "wrong_person":
        # A stranger each take: what a mislabelled folder looks like. Strangers to a community are not of it.
        group = "private" if speaker.group == "community" else speaker.group
        person = Speaker.draw(derive_seed(speaker.seed, "stranger", speaker.index, take), group, speaker.index)
    seconds = frames / FRAME_RATE
    track = draw_articulation(seconds + 0.1, person.manner.rate, person.manner.rounding, generator)
    mouth = track.at_frames(frames, FRAME_RATE)
    motion = _draw_motion(person, frames, generator)
    picture, eyes, mouth_centre = draw_face(person.look, mouth, person.manner.opening, motion, size)
    audio = synthesise(track, person.voice, frames * SAMPLES_PER_FRAME, generator)
    picture = _record(picture, person, size, generator)

    if speaker.fault == "flicker":
        picture = np.clip(picture * generator.uniform(0.6, 1.4, (frames, 1, 1, 1)), 0, 1)
    elif speaker.fault == "shifted_audio":
        audio = np.roll(audio, int(generator.integers(8, 16)) * SAMPLES_PER_FRAME)
    elif speaker.fault == "blurred":
        picture = gaussian_filter(picture, (0, size / 26, size / 26, 0))

    return Clip(
        np.round(picture * 255).astype(np.uint8),
        audio,
        eyes.astype(np.float32),
        mouth_centre.astype(np.float32),
        mouth["openness"].astype(np.float32),
        {"source": "SynthTalk", "speaker": speaker.name, "take": take, "fault": speaker.fault},
    )


def _draw_motion(speaker: Speaker, frames: int, generator: np.random.Generator) -> Motion:
    def wander(scale: float, seconds: float) -> np.ndarray:
        noise = generator.standard_normal(frames + 8 * FRAME_RATE)
        smooth = gaussian_filter1d(noise, seconds * FRAME_RATE, mode="wrap")
        return scale * (smooth / (smooth.std() + 1e-9))[:frames]

    sway = speaker.manner.sway
    lids = np.ones(frames)
    time = generator.uniform(0.2, speaker.manner.blink_seconds)
    while time * FRAME_RATE < frames:
        distance = np.abs(np.arange(frames) - time * FRAME_RATE)
        lids = np.minimum(lids, np.clip(distance / 2.5, 0.08, 1.0))
        time += speaker.manner.blink_seconds * generator.uniform(0.6, 1.5)
    return Motion(
        x=wander(0.022 * sway, 0.5) + generator.uniform(-0.02, 0.02),
        y=wander(0.014 * sway, 0.4) + generator.uniform(-0.015, 0.015),
        roll=wander(0.045 * sway, 0.6),
        yaw=wander(0.09 * sway, 0.6),
        scale=1.0 + wander(0.015 * sway, 0.8),
        lids=lids,
        brows=wander(0.03, 0.4),
    )


def _record(picture: np.ndarray, speaker: Speaker, size: int, generator: np.random.Generator) -> np.ndarray:
    camera = speaker.camera
    picture = np.clip(picture * np.array(camera.gain), 0, 1) ** camera.gamma
    sigma = camera.blur * size / 64
    if sigma > 0.1:
        picture = gaussian_filter(picture, (0, sigma, sigma, 0))
    picture = picture + camera.grain * generator.standard_normal(picture.shape)
    return np.clip(picture, 0, 1)
