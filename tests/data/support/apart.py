"""Work in a forked process, which may be killed, before a change on the disk too."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable


def apart(work: Callable[[], None]) -> int:
    """Do it in a process of its own; returns the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


class KilledBefore:
    """From here on, counts this process's audit events of some names, and kills the process (SIGKILL) before one of them."""

    def __init__(self, number: int, *events: str) -> None:
        """
        Args:
            number: of the event that is not lived to see, from 0; negative for none.
            events: names, as ``os.rename``.
        """
        self.count, self._number, self._events = 0, number, events
        sys.addaudithook(self._watch)

    def _watch(self, event: str, _: object) -> None:
        if event in self._events:
            if self.count == self._number:
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1
