"""What `fedtalk test` measures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from fedtalk.checks import check_choice, check_least

Control = Literal["swapped_audio", "silence", "copy_reference", "copy_moved", "grey", "codec"]
"""Rows that would expose a talker that does nothing. The talker's own, no adapter and the truth are always measured."""


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
    """Clients of whom a clip is written as mp4 and shown on the contact sheet, those that came out worst; 0 for neither."""
    controls: list[Control] = field(default_factory=lambda: list(get_args(Control)))
    """Which controls are measured; all of them by default. Two are generated, as each row of the talker is: ``swapped_audio``
    (somebody else's speech) and ``silence``."""

    def __post_init__(self) -> None:
        check_least("evaluation", 2, clients=self.clients)
        check_least("evaluation", 1, clips=self.clips)
        check_least("evaluation", 0, videos=self.videos)
        for control in self.controls:
            check_choice("evaluation.controls", control, Control)
