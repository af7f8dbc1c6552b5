"""Settings of a preparation, checked before any work."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from fedtalk.data.layouts import Layout, Source, face_picture
from fedtalk.errors import ConfigurationError

SPEAKING = "speaking"


@dataclass(frozen=True)
class Settings:
    """How videos become clips; two runs with equal settings make equal clips."""

    layout: Layout
    size: int
    clip_seconds: float | None
    finder: str
    detect_every: int
    longest_gap: float
    face: str | int

    def __post_init__(self) -> None:
        number = isinstance(self.face, int)
        checks = {
            "size": (self.size >= 32 and self.size % 2 == 0, "an even number of pixels from 32"),
            "clip_seconds": (self.clip_seconds is None or self.clip_seconds >= 0.2, "at least 0.2 s, or None"),
            "detect_every": (self.detect_every >= 1, "at least 1 frame"),
            "longest_gap": (self.longest_gap >= 0, "0 s or more"),
            "face": (
                self.face >= 1 if number else self.face == SPEAKING or Path(self.face).is_file(),  # type: ignore[arg-type, operator]
                "'speaking', a number from 1 (from the left) or the file of a picture of the person",
            ),
        }
        for name, (good, expected) in checks.items():
            if not good:
                raise ConfigurationError(f"prepare: {name} must be {expected}, got {getattr(self, name)!r}")

    def picture(self, source: Source) -> Path | None:
        """The picture that shows who is meant in a video; None where none does."""
        if self.face == SPEAKING:
            return face_picture(source.path, source.person)
        return Path(self.face) if isinstance(self.face, str) else None

    @property
    def noted(self) -> dict[str, object]:
        """As it stands in records, which are shared and hold no paths; a picture's content is known by its file's state."""
        named = self.face == SPEAKING or isinstance(self.face, int)
        return asdict(self) | {"face": self.face if named else "picture"}

    @property
    def of_tracking(self) -> dict[str, object]:
        """The part that decides where the face is: a change of another part does not follow faces again."""
        return {key: value for key, value in self.noted.items() if key not in ("layout", "size", "clip_seconds")}
