"""Frames as they are made: of a portrait that speaks, and of a recording whose mouth is replaced."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
from torch import Tensor

from fedtalk.ahead import ahead
from fedtalk.data.clip import FRAME_RATE
from fedtalk.data.framing import similarity_transform
from fedtalk.encoders.speech import stream_windows
from fedtalk.talker.generation import Generation
from fedtalk.talker.lids import blinks
from fedtalk.talker.pose import swaying_eyes
from fedtalk.talker.production.film import Timed
from fedtalk.talker.production.own_looks import looks_in
from fedtalk.talker.production.paste import after, inverse, paste_frame, paste_mouth
from fedtalk.talker.production.portrait import Portrait
from fedtalk.talker.production.recording import FacePose, Recording
from fedtalk.talker.production.speech import Speech

AHEAD = 16
"""Faces that the networks make while those before them are pasted and written."""


def spoken(generation: Generation, portrait: Portrait, speech: Speech, seed: int, keep_picture: bool) -> Timed:
    """A portrait's frames."""
    reference, back = portrait.reference, inverse(portrait.transform)
    eyes = swaying_eyes(reference.eyes, speech.frames, seed)
    closed = blinks(speech.frames, seed)
    faces = generation.portrait_faces(eyes, reference, _windows(generation, speech), seed, closed)
    for frame in ahead(faces, AHEAD):
        drawn = frame.permute(1, 2, 0).numpy()
        yield (paste_frame(portrait.picture, drawn.astype(np.float32), back) if keep_picture else drawn), 1


def dubbed(generation: Generation, recording: Recording, speech: Speech, seed: int, own_looks: bool) -> Timed:
    """The recording's frames with their mouths replaced; ``own_looks``: by how the recording shows the person's mouth.

    The network works at 25 frames a second, the recording at its own rate: a mouth between two of the network's frames is
    their mean, each moved to where the face is.
    """
    reference = recording.reference()
    if own_looks:
        generation = replace(generation, looks=looks_in(recording, reference) or generation.looks)
    poses: deque[FacePose | None] = deque()

    def cut_out() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        last = reference.frame, reference.eyes  # also stands in where there is no face; nothing is pasted there
        for shown in recording.each_40_ms(speech.frames):
            look = recording.look(shown.frame.seconds)
            poses.append(look)
            if look is not None:
                last = recording.cut_out(shown.frame, look)
            yield last

    drawing = generation.dub_faces(cut_out(), speech.frames, reference, _windows(generation, speech), seed)
    faces = ahead(drawing, AHEAD)
    drawn: deque[tuple[np.ndarray, FacePose | None]] = deque(maxlen=2)
    count = 0
    for shown in recording.play(speech.seconds):
        position = shown.at * FRAME_RATE
        before = min(int(position + 1e-6), speech.frames - 1)
        share = min(max(position - before, 0.0), 1.0)
        last = min(before + (share > 1e-3), speech.frames - 1)
        while count <= last:
            drawn.append((next(faces).permute(1, 2, 0).numpy().astype(np.float32), poses.popleft()))
            count += 1
        pair = [drawn[before - count], drawn[last - count]]
        look, picture = recording.look(shown.frame.seconds), shown.frame.rgb()
        usable = [
            (face, _place(own, look), weight)
            for (face, own), weight in zip(pair, (1 - share, share), strict=True)
            if look is not None and own is not None and own.run == look.run and weight > 0
        ]
        if look is None or not usable:
            yield picture, shown.ticks
        else:
            face, place = _mixed(usable)
            yield paste_mouth(picture, face, place, look.eyes), shown.ticks


def _place(own: FacePose, look: FacePose) -> np.ndarray:
    """From the pixels of a crop that was cut out at one look to the picture of another."""
    return after(similarity_transform(own.eyes, look.eyes), inverse(own.transform))


def _mixed(faces: list[tuple[np.ndarray, np.ndarray, float]]) -> tuple[np.ndarray, np.ndarray]:
    """The weighted mean of one or two faces, in the pixels of the first, and where that goes."""
    face, place, weight = faces[0]
    for other, there, share in faces[1:]:
        moved = cv2.warpAffine(
            other, after(inverse(place), there), (len(face), len(face)), flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        face = (weight * face + share * moved) / (weight + share)
    return face, place


def _windows(generation: Generation, speech: Speech) -> Iterator[Tensor]:
    return stream_windows(generation.backbone.speech, speech.by_frame(), speech.level)
