"""How long a client may take: a straggler costs its update, not the cohort's time."""

from __future__ import annotations

import time

from fedtalk.errors import FedTalkError

GRACE = 1.0
"""Seconds that a worker has to say itself that its client is too late."""


class DeadlineError(FedTalkError):
    """A client took longer over its round than it was given."""


class Deadline:
    """The end of one client's time, on the monotonic clock: setting the system's clock neither shortens nor extends it.

    It is looked at between local steps and before the update is sealed. What hangs inside one step, or in opening one clip,
    is noticed when that step ends and not before, unless the client is in a worker: that is killed `GRACE` seconds later.

    >>> Deadline("anna", None).check("training")
    """

    def __init__(self, client: str, seconds: float | None) -> None:
        """
        Args:
            client: named in the error.
            seconds: from now on; None for no limit.
        """
        self._client, self._seconds = client, seconds
        self._started = time.monotonic()

    def check(self, doing: str) -> None:
        """
        Raises:
            DeadlineError: the time is over.
        """
        if self._seconds is None:
            return
        taken = time.monotonic() - self._started
        if taken > self._seconds:
            raise late(self._client, doing, taken, self._seconds)


def late(client: str, doing: str, taken: float, seconds: float) -> DeadlineError:
    """The error of a client that has taken ``taken`` of its ``seconds``."""
    return DeadlineError(
        f"client {client} was {doing} after {taken:.1f} s; expected its update within local.deadline_seconds={seconds:g}. "
        "Allow more time, or give it fewer steps."
    )
