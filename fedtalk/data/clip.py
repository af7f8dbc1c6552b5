"""A clip: aligned face frames and the speech that goes with them, in memory and on disk.

On disk a *clients folder* holds one folder a client, and each client folder one ``.npz`` a clip::

    clients/
      anna/clip-0000.npz
      anna/clip-0001.npz
      bert/clip-0000.npz
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedtalk.errors import ArtifactError
from fedtalk.storage import atomic_path

FRAME_RATE = 25
"""Video frames a second, everywhere in fedtalk."""
SAMPLE_RATE = 16_000
"""Audio samples a second, everywhere in fedtalk."""
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE


@dataclass(frozen=True)
class Reference:
    """One picture of a person: what the talker knows of their looks."""

    frame: np.ndarray
    """(H, W, 3) uint8, RGB, square."""
    eyes: np.ndarray
    """(2, 2) float32: centre of the eye on the left and on the right of the picture, (x, y) in pixels."""
    mouth: np.ndarray | None = None
    """(2,) float32: centre of the mouth where a face finder, or whoever drew it, has said so, (x, y) in pixels."""


@dataclass
class Clip:
    """One clip of one speaker, video and audio starting at the same instant."""

    frames: np.ndarray
    """(F, H, W, 3) uint8, RGB, square."""
    audio: np.ndarray
    """(N,) float32 in [-1, 1], 16 kHz mono, N = 640 F."""
    eyes: np.ndarray
    """(F, 2, 2) float32: centre of the eye on the left and on the right of the picture, (x, y) in pixels."""
    mouth: np.ndarray
    """(F, 2) float32: centre of the mouth, (x, y) in pixels."""
    openness: np.ndarray | None = None
    """(F,) float32 in [0, 1], true opening of the lips, where it is known (SynthTalk)."""
    info: Mapping[str, object] = field(default_factory=dict)
    """Where the clip came from (source file, start in seconds, ...); plain JSON values."""
    transforms: np.ndarray | None = None
    """(F, 2, 3) float64: takes (x, y, 1) in the source picture to (x, y) in the frame, for pasting a face back."""

    def __post_init__(self) -> None:
        count = len(self.frames)
        if self.frames.ndim != 4 or self.frames.shape[-1] != 3 or self.frames.dtype != np.uint8:
            raise ArtifactError(
                f"clip frames: expected (F, H, W, 3) uint8, got {self.frames.shape} {self.frames.dtype}"
            )
        if self.audio.shape != (count * SAMPLES_PER_FRAME,):
            raise ArtifactError(
                f"clip audio: expected {count * SAMPLES_PER_FRAME} samples for {count} frames, got {self.audio.shape}"
            )
        if self.eyes.shape != (count, 2, 2) or self.mouth.shape != (count, 2):
            raise ArtifactError(
                f"clip landmarks: expected {count} frames, got {self.eyes.shape} and {self.mouth.shape}"
            )
        if self.transforms is not None and self.transforms.shape != (count, 2, 3):
            raise ArtifactError(f"clip transforms: expected ({count}, 2, 3), got {self.transforms.shape}")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> int:
        """Height and width of a frame in pixels."""
        return int(self.frames.shape[1])

    def reference(self, index: int) -> Reference:
        """Frame ``index`` as a reference picture."""
        return Reference(self.frames[index], self.eyes[index], self.mouth[index])

    def references(self) -> list[tuple[Reference, int]]:
        """Pictures of the person to learn with, each with the number of the frame that it is: the first and the last."""
        return [(self.reference(at), at) for at in (0, len(self) - 1)]

    def surroundings(self) -> tuple[np.ndarray, int]:
        """(640 N,) the sound that the clip was cut from, as far as it is known, and the frame of it at which the clip starts."""
        return self.audio, 0

    def window(self, start: int, length: int) -> Clip:
        """Frames ``start`` to ``start + length`` with their audio."""
        part = slice(start, start + length)
        return Clip(
            self.frames[part],
            self.audio[start * SAMPLES_PER_FRAME : (start + length) * SAMPLES_PER_FRAME],
            self.eyes[part],
            self.mouth[part],
            None if self.openness is None else self.openness[part],
            self.info,
            None if self.transforms is None else self.transforms[part],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the clip as ``.npz`` (audio as 16-bit samples), atomically."""
        arrays = {
            "frames": self.frames,
            "audio": np.clip(np.round(self.audio * 32767), -32768, 32767).astype(np.int16),
            "eyes": self.eyes.astype(np.float32),
            "mouth": self.mouth.astype(np.float32),
            "info": np.array(json.dumps(dict(self.info))),
        }
        if self.openness is not None:
            arrays["openness"] = self.openness.astype(np.float32)
        if self.transforms is not None:
            arrays["transforms"] = self.transforms.astype(np.float64)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)

    @classmethod
    def facts(cls, path: str | os.PathLike[str]) -> tuple[tuple[int, ...], dict[str, object]]:
        """Shape of a clip's frames and its ``info``, without reading the frames.

        Raises:
            ArtifactError: the file is missing, cut short or not a clip.
        """
        with _readable(Path(path)) as stored, stored.zip.open("frames.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
            if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8:
                raise ArtifactError(f"clip frames: expected (F, H, W, 3) uint8, got {shape} {dtype}")
            return shape, json.loads(str(stored["info"]))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Clip:
        """Read a clip written by `save`.

        Raises:
            ArtifactError: the file is missing, cut short or not a clip.
        """
        with _readable(Path(path)) as stored:
            return cls(
                stored["frames"],
                stored["audio"].astype(np.float32) / 32767,
                stored["eyes"],
                stored["mouth"],
                stored.get("openness"),
                json.loads(str(stored["info"])),
                stored.get("transforms"),
            )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[Any]:
    """The arrays of a clip's file; whatever is wrong with it is an ArtifactError that names it."""
    try:
        # numpy leaves a file open that it opened itself and found damaged
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            yield stored
    except FileNotFoundError as error:
        raise ArtifactError(f"clip {path} does not exist; expected an .npz made by `fedtalk prepare`") from error
    except ArtifactError as error:
        raise ArtifactError(f"clip {path}: {error}") from error
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a damaged file
        raise ArtifactError(
            f"clip {path} can't be read ({type(error).__name__}: {error}); the file is damaged or not a clip. "
            "Remove it and run `fedtalk prepare` again."
        ) from error
