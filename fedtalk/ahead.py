"""Work that is done in a thread of its own, a little before its results are asked for.

Networks, decoders and encoders run outside Python's lock, so that reading, drawing and writing cost no time beside a network.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_own = threading.local()


class NotWanted(Exception):
    """Whoever asked for the work has gone."""


def check_wanted() -> None:
    """Leave work of `ahead` whose reader has stopped; long work asks from time to time. Does nothing anywhere else.

    Raises:
        NotWanted: nobody reads what this thread makes.
    """
    stopped = getattr(_own, "stopped", None)
    if stopped is not None and stopped.is_set():
        raise NotWanted


def ahead(items: Iterator[T], most: int) -> Iterator[T]:
    """The same items in the same order, each made in one other thread while the reader works on those before it.

    What ``items`` raises is raised here in its place. When the reader stops, the item under way is abandoned at its next
    `check_wanted`, and ``items`` is closed.

    Args:
        items: read by the other thread alone, from the first item on.
        most: items that are made before they are asked for.
    """
    end, stopped = object(), threading.Event()
    worker = ThreadPoolExecutor(1, "fedtalk-ahead", lambda: setattr(_own, "stopped", stopped))
    waiting = deque(worker.submit(next, items, end) for _ in range(most))
    try:
        while (item := waiting.popleft().result()) is not end:
            waiting.append(worker.submit(next, items, end))
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        worker.shutdown(cancel_futures=True)
        if close := getattr(items, "close", None):
            close()
