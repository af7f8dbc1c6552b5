"""How far a client's clips can be relied on, measured by itself on its own clips and on nothing else.

Four signals, each against the faults that it is for:

==================  ======================================================================================  ==================
``sharpness``       share of the picture's gradient energy that another blur takes away (after the           blurred pictures
                    re-blur of Crete et al. 2007)
``steadiness``      minus the logarithm of how much the light jumps from frame to frame                      flicker
``lips``            correlation of the lips' opening as it is seen with that which is heard, at most two      sound that is late
                    frames apart
``identity``        cosine of the least fitting clip's face with the other clips' faces                      clips of strangers
==================  ======================================================================================  ==================

Faces of SynthTalk's drawn people are embedded by fedtalk's own encoder, which has seen them alone; all others by dlib's
recogniser, since the former takes some real people's sentences for two people's.

A signal is compared with its distribution among *public* people, reliable ones and such with the fault: 1 at or above the former,
0 at or below the latter, straight in between (`Limits`). A client is as reliable as its worst signal says. Nothing of this
depends on the model or the round, so it is measured once a clip, when the clip is prepared. What all clips of a client share, it
can't see: a whole folder of one stranger is a client like any other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedtalk.data.clip import Clip
from fedtalk.data.pixels import to_unit
from fedtalk.encoders.dlib_recogniser import DlibRecogniser
from fedtalk.encoders.identity import PIXELS, IdentityEncoder
from fedtalk.encoders.mouth_probe import MouthProbe
from fedtalk.encoders.speech import heard_lips
from fedtalk.errors import ArtifactError

SIGNALS = ("sharpness", "steadiness", "lips", "identity")
LIMITED = (*SIGNALS, "identity_real")
"""What there are limits for: cosines of two encoders are on two scales."""
APART = 2
"""Frames by which lips and sound may be apart in a recording that is in order."""
EVERY = 4
"""Of the frames, every n-th is looked at for what does not move."""
FACES = 5
"""Frames of a clip, about, that dlib embeds."""


@dataclass(frozen=True)
class Limits:
    """Between which values of a signal its score rises from 0 to 1."""

    low: float
    high: float

    def score(self, value: float) -> float:
        """
        >>> Limits(1.0, 3.0).score(2.5)
        0.75
        """
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


@torch.no_grad()
def evidence(clip: Clip) -> dict[str, Tensor]:
    """What a clip of F frames adds to its client's signals.

    Returns:
        ``sharpness`` () in [0, 1]; ``jumps`` () mean absolute second difference of the logarithm of the frames' brightness;
        ``lips`` (3, 5) covariance of seen and heard opening, variance of either, at -2 to 2 frames apart; ``face`` (128,) mean
        embedding, of unit length; ``drawn`` () 1 where it is that of a drawn face, by fedtalk's own encoder, else 0.
    """
    picture = to_unit(torch.from_numpy(np.ascontiguousarray(clip.frames)).permute(0, 3, 1, 2))
    light = ((picture + 1) / 2).mean((1, 2, 3)).clamp_min(0.01).log()
    still = picture[::EVERY]
    if clip.size > PIXELS:
        still = F.interpolate(still, size=(PIXELS, PIXELS), mode="area")
    drawn = clip.info.get("source") == "SynthTalk"
    if drawn:
        faces = identity_encoder()(still)
    else:
        some = slice(None, None, max(1, len(clip) // FACES))
        faces = torch.from_numpy(face_recogniser().embed(clip.frames[some], clip.eyes[some], clip.mouth[some]))
    return {
        "sharpness": _sharpness(still),
        "jumps": light.diff().diff().abs().mean(),
        "lips": _lips(mouth_probe().measure(clip.frames, clip.mouth, clip.eyes), clip.audio),
        "face": F.normalize(faces.mean(0), dim=0),
        "drawn": torch.tensor(float(drawn)),
    }


def signals(clips: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """The signals of a client, by name.

    Args:
        clips: `evidence` of its clips, at least one.
    """
    covariance, seen, heard = torch.stack([clip["lips"] for clip in clips]).double().sum(0)
    faces = torch.stack([clip["face"] for clip in clips]).double()
    identity = 1.0  # of a single clip
    if len({bool(clip["drawn"]) for clip in clips}) > 1:
        identity = -1.0  # a drawn face and a real one are two people
    elif len(clips) > 1:
        others = (faces.sum(0) - faces) / (len(clips) - 1)
        identity = float((faces * others).sum(1).min())
    return {
        "sharpness": float(torch.stack([clip["sharpness"] for clip in clips]).double().mean()),
        "steadiness": float(-torch.stack([clip["jumps"] for clip in clips]).double().add(1e-3).log().mean()),
        "lips": float((covariance / (seen * heard).sqrt().clamp_min(1e-12)).max()),
        "identity": identity,
    }


def quality(clips: Sequence[Mapping[str, Tensor]], limits: Mapping[str, Limits] | None = None) -> float:
    """The score of a client in [0, 1]: that of its worst signal.

    Args:
        clips: `evidence` of its clips, at least one.
        limits: by name (`LIMITED`); those that come with the package by default.
    """
    found, limits = signals(clips), limits or shipped_limits()
    of_identity = "identity" if clips[0]["drawn"] else "identity_real"
    return min(limits[of_identity if name == "identity" else name].score(found[name]) for name in SIGNALS)


@lru_cache(maxsize=1)
def shipped_limits() -> dict[str, Limits]:
    """Limits measured on public people (``scripts/score_quality.py``).

    Raises:
        ArtifactError: the package was installed without them, or they are damaged.
    """
    try:
        stored = json.loads((resources.files("fedtalk.weights") / "quality.json").read_text(encoding="utf-8"))
        return {name: Limits(stored["limits"][name]["low"], stored["limits"][name]["high"]) for name in LIMITED}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ArtifactError(
            f"fedtalk/weights/quality.json can't be read ({type(error).__name__}: {error}); install fedtalk again, or make it "
            "with scripts/score_quality.py"
        ) from error


def _sharpness(frames_N3HW: Tensor) -> Tensor:
    """Of the middle of the frames, where the face is."""
    edge = frames_N3HW.shape[-1] // 8
    grey = frames_N3HW.mean(1, keepdim=True)[..., edge:-edge, edge:-edge]
    row = torch.tensor([0.25, 0.5, 0.25])
    blurred = F.conv2d(grey, (row[:, None] * row)[None, None])

    def energy(picture: Tensor) -> Tensor:
        return picture.diff(dim=-1).square().mean() + picture.diff(dim=-2).square().mean()

    return (1 - energy(blurred) / energy(grey[..., 1:-1, 1:-1]).clamp_min(1e-12)).clamp(0, 1)


def _lips(seen_F: np.ndarray, audio: np.ndarray) -> Tensor:
    """(3, 5): sums, so that clips in which nobody speaks count for little beside others."""
    seen, heard = torch.from_numpy(seen_F).double(), heard_lips(torch.from_numpy(audio))[:, 0].double()
    columns = []
    for apart in range(-APART, APART + 1):
        one, other = seen[max(0, -apart) : len(seen) - max(0, apart)], heard[max(0, apart) : len(heard) + min(0, apart)]
        one, other = one - one.mean(), other - other.mean()
        columns.append(torch.stack([(one * other).sum(), one.square().sum(), other.square().sum()]))
    return torch.stack(columns, 1).float()


@lru_cache(maxsize=1)
def identity_encoder() -> IdentityEncoder:
    """The shipped one, read once and frozen."""
    return IdentityEncoder.shipped().requires_grad_(False)


@lru_cache(maxsize=1)
def face_recogniser() -> DlibRecogniser:
    """dlib's, read once."""
    return DlibRecogniser()


@lru_cache(maxsize=1)
def mouth_probe() -> MouthProbe:
    """The shipped one, read once and frozen."""
    return MouthProbe.shipped().requires_grad_(False)
