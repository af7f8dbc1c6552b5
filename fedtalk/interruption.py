"""SIGTERM and SIGINT: a run is asked to stop, and stops where nothing is half done."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

STOPPING = (signal.SIGTERM, signal.SIGINT)


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop. Its last checkpoint is whole; the round under way, if there was one, is abandoned."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number


class StopSignals:
    """Remembers the first SIGTERM or SIGINT until `check` is called; the second one interrupts at once.

    A handler that raised at any instant could do so between a checkpoint and the monitors that log its round, or within
    an exchange of keys. The trainer therefore asks between two local steps, two clients and two rounds; a stop takes as
    long as the step under way. Files are whole or absent either way (`fedtalk.storage.atomic_path`).

    Signals reach Python's main thread only; in another thread the block changes nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._former: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        self.received = None
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._receive) for number in STOPPING}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._former = {}

    def check(self) -> None:
        """Stop here if a signal has come.

        Raises:
            Interrupted: SIGTERM or SIGINT came since the block was entered.
        """
        if self.received is not None:
            raise Interrupted(self.received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise Interrupted(number)
        self.received = number
