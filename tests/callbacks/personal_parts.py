"""Clips that worker processes can import too, of clients who get into trouble there."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from fedtalk.data.source import ClipSource
from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.errors import OutputError


class Troubled(SynthTalkData):
    """Two windows' worth of clips a client, at 32 px."""

    def __init__(
        self, speakers: int, dies: int | None = None, no_clips: int | None = None, full: int | None = None
    ) -> None:
        """
        Args:
            speakers: clients.
            dies: number of the client whose worker is killed when it opens its clips.
            no_clips: number of the client that has none.
            full: number of the client whose disk is full.
        """
        super().__init__(speakers=speakers, clips=1, held_out=1, frames=12, size=32)
        self.dies, self.no_clips, self.full = dies, no_clips, full
        self.main = os.getpid()

    def training_clips(self, client: str) -> Sequence[ClipSource]:
        number = self.clients.index(client)
        if number == self.dies and os.getpid() != self.main:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == self.full:
            raise OutputError("cannot write clip: no space left on device")
        return [] if number == self.no_clips else super().training_clips(client)
