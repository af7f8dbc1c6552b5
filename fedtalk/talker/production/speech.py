"""Speech that is to be spoken, read from its file as often as it is needed, so that memory does not grow with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedtalk.data.clip import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from fedtalk.data.media import audio_blocks, checked_audio, sound_rate
from fedtalk.data.video_writer import AAC_RATES, AudioStream
from fedtalk.errors import MediaError


@dataclass(frozen=True)
class Speech:
    """What is known of speech after it was heard once."""

    frames: int
    """Whole video frames of 40 ms; what is left over is less than one and not spoken."""
    level: float
    """Root mean square."""
    path: Path | None
    """Its file; None where ``samples`` hold it."""
    samples: np.ndarray | None = None

    @property
    def seconds(self) -> float:
        return self.frames / FRAME_RATE

    @classmethod
    def read(cls, source: str | Path | np.ndarray) -> Speech:
        """Hear a file, or (N,) float32 at 16 kHz, to its end.

        Raises:
            MediaError: it can't be read, is shorter than a frame, or silent throughout.
        """
        if isinstance(source, np.ndarray):
            samples = checked_audio(source, SAMPLE_RATE)
            path, blocks = None, iter([samples])
        else:
            samples, path = None, Path(source).expanduser()
            blocks = audio_blocks(path, SAMPLE_RATE)
        count, energy = 0, 0.0
        for block in blocks:
            count += len(block)
            energy += float(np.square(block, dtype=np.float64).sum())
        what = "the speech" if path is None else str(path)
        if count < SAMPLES_PER_FRAME:
            raise MediaError(f"{what}: {count / SAMPLE_RATE:.3f} s of sound; expected at least one frame (0.04 s)")
        if not math.isfinite(energy):
            raise MediaError(f"{what}: expected finite samples, got NaN or infinity")
        if energy == 0:
            raise MediaError(f"{what}: expected speech, got {count / SAMPLE_RATE:.2f} s of digital silence")
        return cls(count // SAMPLES_PER_FRAME, math.sqrt(energy / count), path, samples)

    def by_frame(self) -> Iterator[np.ndarray]:
        """(640,) float32 for each frame."""
        if self.samples is not None:
            yield from self.samples[: self.frames * SAMPLES_PER_FRAME].reshape(-1, SAMPLES_PER_FRAME)
        else:
            assert self.path is not None
            blocks = audio_blocks(self.path, SAMPLES_PER_FRAME)
            yield from (block for block, _ in zip(blocks, range(self.frames), strict=False))

    def sound(self) -> AudioStream:
        """What is heard in the video: the file's own sound, mixed to one channel, at its own rate where players take it."""
        if self.path is None:
            return AudioStream(SAMPLE_RATE, 1, (frame[None] for frame in self.by_frame()))
        own = sound_rate(self.path)
        rate = max(SAMPLE_RATE, own if own in AAC_RATES else AAC_RATES[-1])
        return AudioStream(rate, 1, (block[None] for block in audio_blocks(self.path, rate // FRAME_RATE, rate)))
