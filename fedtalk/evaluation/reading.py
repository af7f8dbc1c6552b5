"""What instruments read off a generated clip: opening of the lips, landmarks, embeddings; each on first use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedtalk.data.clip import Clip
from fedtalk.encoders.sync import SyncScorer
from fedtalk.evaluation.landmarks import LandmarkReader
from fedtalk.evaluation.metrics.motion import TrueMotion
from fedtalk.evaluation.openness import OpennessProbe
from fedtalk.evaluation.recognisers import Recogniser
from fedtalk.evaluation.syncnet import SyncNet

EMBEDDED_EVERY = 4
"""Every n-th frame is embedded: it is slow, and changes little from frame to frame."""


@dataclass(frozen=True)
class Instruments:
    """What clips are measured with; each measure's report names its instrument."""

    probe: OpennessProbe
    recogniser: Recogniser
    landmarks: LandmarkReader
    sync: SyncScorer | None
    """Only for SynthTalk, which it was trained on."""
    syncnet: SyncNet | None = None
    """The published one, where the user has its weights."""


@dataclass(frozen=True)
class GroundTruth:
    """What a clip is measured against."""

    clip: Clip
    """The truth."""
    source: Clip
    """One frame of the person, from another clip, that the talker was given."""
    instruments: Instruments

    @cached_property
    def landmarks(self) -> np.ndarray:
        """(F, 68, 2) of the true frames."""
        return self.instruments.landmarks.read(self.clip.frames, self.clip.eyes)

    @cached_property
    def openness(self) -> np.ndarray:
        """(F,) of the true frames: as the clip knows it, else as the probe reads them."""
        return self.opening_of(self.clip)

    def opening_of(self, clip: Clip) -> np.ndarray:
        """(F,) of this clip or another, such as a donor of speech."""
        if clip.openness is not None:
            return clip.openness
        return self.instruments.probe.measure(clip.frames, clip.mouth, clip.eyes)

    @cached_property
    def motion(self) -> TrueMotion:
        """Of the true frames."""
        return TrueMotion.of(self.clip.frames)

    @cached_property
    def embeddings(self) -> np.ndarray:
        """(N, D) of true frames."""
        return Reading(self, self.clip.frames, self.clip.audio).embeddings

    @cached_property
    def source_embeddings(self) -> np.ndarray:
        """(1, D) of the frame that the talker was given."""
        return self.instruments.recogniser.embed(self.source.frames, self.source.eyes, self.source.mouth)


@dataclass(frozen=True)
class Reading:
    """A generated clip."""

    reference: GroundTruth
    frames: np.ndarray
    """(F, H, W, 3) uint8."""
    audio: np.ndarray
    """(640 F,) the speech that it was generated for."""
    donor: Clip | None = None
    """Whose speech that is, where it is somebody else's."""
    silent: bool = False
    """Whether it was generated for silence."""

    @property
    def clip(self) -> Clip:
        return self.reference.clip

    @property
    def true_openness(self) -> np.ndarray:
        """(F,) of the truth."""
        return self.reference.openness

    @cached_property
    def donor_openness(self) -> np.ndarray:
        """(F,) of the donor's clip; only where there is one."""
        assert self.donor is not None, "asked of a clip without a donor"
        return self.reference.opening_of(self.donor)

    @cached_property
    def openness(self) -> np.ndarray:
        """(F,) in the probe's unit."""
        return self.reference.instruments.probe.measure(self.frames, self.clip.mouth, self.clip.eyes)

    @cached_property
    def lse(self) -> tuple[float, float]:
        """LSE-D and LSE-C; only where there is a SyncNet."""
        assert self.reference.instruments.syncnet is not None, "asked without a SyncNet"
        return self.reference.instruments.syncnet.scores(self.frames, self.audio, self.clip.eyes)

    @cached_property
    def landmarks(self) -> np.ndarray:
        """(F, 68, 2) in pixels."""
        return self.reference.instruments.landmarks.read(self.frames, self.clip.eyes)

    @cached_property
    def embeddings(self) -> np.ndarray:
        """(N, D) float32 of every fourth frame, of unit length."""
        some = slice(None, None, EMBEDDED_EVERY)
        return self.reference.instruments.recogniser.embed(
            self.frames[some], self.clip.eyes[some], self.clip.mouth[some]
        )
