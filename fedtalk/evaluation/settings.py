"""What `fedtalk test` measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedtalk.checks import check_least


@dataclass
class EvaluationSettings:
    """What `fedtalk test` measures."""

    clients: int = 8
    """Clients, from the first, at least 2; unreliable ones are left out."""
    clips: int = 2
    """Held-out clips of each."""
    portrait: bool = True
    """Measure the portrait task too (a table beside the dub task's)."""
    openness: Literal["synthtalk", "landmarks"] = "synthtalk"
    """How the opening of the mouth is read from frames: ``synthtalk`` (the shipped probe) or ``landmarks`` (dlib, real faces)."""
    videos: int = 4
    """Clients whose clips are written as mp4."""

    def __post_init__(self) -> None:
        check_least("evaluation", 2, clients=self.clients)
        check_least("evaluation", 1, clips=self.clips)
