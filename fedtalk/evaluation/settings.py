"""What `fedtalk test` measures."""

from __future__ import annotations

from dataclasses import dataclass

from fedtalk.errors import ConfigurationError


@dataclass
class EvaluationSettings:
    """What `fedtalk test` measures."""

    clients: int = 8
    """Clients, from the first; unreliable ones are left out."""
    clips: int = 2
    """Held-out clips of each."""
    portrait: bool = True
    """Measure the portrait task too (a table beside the dub task's)."""
    openness: str = "synthtalk"
    """How the opening of the mouth is read from frames: ``synthtalk`` (the shipped probe) or ``landmarks`` (dlib, real faces)."""
    videos: int = 4
    """Clients whose clips are written as mp4."""

    def __post_init__(self) -> None:
        for name in ("clients", "clips"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"evaluation.{name}: expected at least 1, got {getattr(self, name)}")
