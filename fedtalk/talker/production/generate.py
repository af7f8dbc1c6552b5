"""From a picture or a recording and speech to a video of any length: frames as a stream, or a finished file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch

from fedtalk.data.clip import FRAME_RATE
from fedtalk.data.faces import Finder, face_finder
from fedtalk.data.media import read_image
from fedtalk.data.provenance import EDITED, GENERATED, Provenance
from fedtalk.errors import ConfigurationError
from fedtalk.talker.backbone import SHIPPED
from fedtalk.talker.module import Talker
from fedtalk.talker.production.film import Film
from fedtalk.talker.production.named_adapters import parse_adapters, use_adapters
from fedtalk.talker.production.portrait import find_portrait
from fedtalk.talker.production.recording import Recording, WhenShort
from fedtalk.talker.production.speech import Speech
from fedtalk.talker.production.streams import dubbed, spoken
from fedtalk.talker.sampler import window_starts

log = logging.getLogger("fedtalk")

Precision = Literal["32", "bf16", "16"]
PRECISIONS: dict[Precision, torch.dtype] = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
LARGEST_PICTURE = 1920
"""Longer side in pixels of a picture that is kept around the face; larger ones are made smaller."""


@dataclass(frozen=True)
class Ready:
    """A talker with its adapters."""

    talker: Talker
    adapters: Mapping[str, float]
    """Weight by name."""


def generate(
    audio: str | Path | np.ndarray,
    portrait: str | Path | np.ndarray | None = None,
    video: str | Path | None = None,
    *,
    adapter: str | Mapping[str, float] | None = None,
    run: str | Path | None = None,
    backbone: str = SHIPPED,
    guidance: float = 1.0,
    steps: int = 1,
    stride: int = 4,
    seed: int = 0,
    finder: Finder = "dlib",
    when_short: WhenShort = "loop",
    learn_looks: bool = True,
    keep_picture: bool = False,
    device: str = "auto",
    precision: Precision = "32",
    talker: Ready | None = None,
) -> Film:
    """A speaking face, frame by frame.

    Args:
        audio: speech: a file, or (N,) float32 at 16 kHz.
        portrait: picture of the person, a file or (H, W, 3) uint8; the whole face is drawn from it.
        video: instead of a portrait, a recording whose mouth is to follow the speech; all else in it stays as it is.
        adapter: a person's name or adapter folder, or several with weights ("anna:0.7,bert:0.3"); none uses the backbone alone.
        run: run whose adapters names are looked for in; by default, those of all runs below ``runs``.
        backbone: ``shipped`` or the folder of the backbone that the adapter was trained on.
        guidance: weight of the audio; above 1 the mouth moves more clearly, at twice the time.
        steps: denoising steps.
        stride: frames between sampling windows.
        seed: of the noise.
        finder: face finder.
        when_short: where the speech is longer than the recording: loop, hold or refuse.
        learn_looks: with a video: learn from its first eight seconds how this person's mouth looks (teeth, lips, chin), in
            place of what the adapter knows of it; no training, and nothing is kept.
        keep_picture: put the face back into the whole portrait.
        device: auto, cpu, cuda, cuda:1, mps.
        precision: 32, bf16 or 16.
        talker: one that is loaded already, adapter and all, see `load_talker`; adapter, run and backbone are then not read.

    Returns:
        the video, to be iterated over or saved; nothing is generated before.

    Raises:
        ConfigurationError: neither or both of portrait and video, or a setting out of range.
        MediaError: an input can't be used.
        ArtifactError: the backbone or an adapter can't be.
    """
    if (portrait is None) == (video is None):
        raise ConfigurationError("generate: give either --portrait PICTURE or --video VIDEO")
    if precision not in PRECISIONS:
        raise ConfigurationError(f"generate: precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if steps < 1:
        raise ConfigurationError(f"generate: steps must be at least 1, got {steps}")
    speech = Speech.read(audio)
    ready = talker or load_talker(adapter, run, backbone, device)
    generation = replace(
        ready.talker.generation, guidance=guidance, sampling_steps=steps, stride=stride, precision=PRECISIONS[precision]
    )
    window_starts(1, generation.window, stride)  # refuses a stride that would leave gaps
    size = generation.backbone.architecture.size
    made = Provenance(EDITED if video is not None else GENERATED, ready.talker.fingerprint(), ready.adapters)
    if video is not None:
        recording = Recording(video, speech.seconds, size, face_finder(finder), when_short)
        return Film(
            speech, recording.frame_rate, recording.time_base, replace(made, source=recording.path), recording.metadata,
            lambda: dubbed(generation, recording, speech, seed, learn_looks),
        )  # fmt: skip
    assert portrait is not None
    picture = portrait if isinstance(portrait, np.ndarray) else read_image(Path(portrait).expanduser())
    longer = max(picture.shape[:2])
    if keep_picture and longer > LARGEST_PICTURE:
        log.warning("portrait: made smaller, from %d pixels to %d on its longer side", longer, LARGEST_PICTURE)
        share = LARGEST_PICTURE / longer
        picture = cv2.resize(picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    found = find_portrait(picture, size, face_finder(finder))
    return Film(
        speech, Fraction(FRAME_RATE), Fraction(1, FRAME_RATE), made, {},
        lambda: spoken(generation, found, speech, seed, keep_picture),
    )  # fmt: skip


def load_talker(
    adapter: str | Mapping[str, float] | None = None,
    run: str | Path | None = None,
    backbone: str = SHIPPED,
    device: str = "auto",
) -> Ready:
    """What `generate` works with; arguments as there."""
    chosen = _device(device)
    weights = parse_adapters(adapter)
    talker = Talker(backbone if backbone == SHIPPED else str(Path(backbone).expanduser()))
    used = use_adapters(talker, weights, run)
    return Ready(talker.eval().requires_grad_(False).to(chosen), used)


def _device(name: str) -> torch.device:
    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(
            f"generate: device {name!r} can't be used ({' '.join(str(error).split())[:120]}); expected auto, cpu, cuda or mps"
        ) from error
    return device
