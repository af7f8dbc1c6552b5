"""A site's side of Flower: a SuperNode that speaks with the SuperLink, and the tasks that it hands to this process.

The SuperNode runs with ``--isolation process``: what it receives waits until an executor takes it. Flower's own executor
would start a process for each message and run the code of the app bundle that came with the run. This one is the process
that holds the site already, and it never looks at the bundle.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from fedtalk.federation.engines.flower.flwr_internals import Tasks, work
from fedtalk.federation.engines.flower.grid import pack, unpack
from fedtalk.federation.engines.flower.processes import Child

log = logging.getLogger("fedtalk")

POLL_SECONDS = 0.2
RESTART_SECONDS = 2.0
MOST_WAIT_SECONDS = 60.0
"""How long a SuperNode itself goes on trying to reach the server, before it ends and is started again."""
SENDING_SECONDS = 5.0
"""A SuperNode looks for an answer to send every half second; after the last one it gets this long."""


def serve(
    node: Child,
    address: str,
    secret: Path,
    answer: Callable[[bytes], bytes],
    done: Callable[[], bool],
    check: Callable[[], None],
    patience_seconds: float,
) -> None:
    """Answer what the SuperNode receives until ``done``; start it again where it ends.

    It ends where the SuperLink can't be reached or doesn't know its key, be it not yet or, after the server was started
    again, not any more. No start lasts beyond the patience that is left.

    Args:
        node: the SuperNode.
        address: of its Runtime API, on this machine.
        secret: see `secret_file`.
        answer: from a request to its answer.
        done: asked after each answer.
        check: called between requests; may raise to stop.
        patience_seconds: without a message, after which a SuperNode that ends is not started again.

    Raises:
        FedTalkError: the SuperNode ended, and nothing had come for that long.
    """
    tasks, heard, told = Tasks(address, secret, server=False), time.monotonic(), ""
    try:
        while not done():
            check()
            if node.ended:
                left = patience_seconds - (time.monotonic() - heard) - RESTART_SECONDS
                if left <= 0:
                    node.check()
                if told != (told := node.last_words()):
                    log.info("the SuperNode ended and is started again: %s", told)
                time.sleep(RESTART_SECONDS)
                node.start("--max-wait-time", f"{min(left, MOST_WAIT_SECONDS):g}")
            try:
                taken = tasks.take()
            except httpx.HTTPError:  # it is still coming up, has just ended, or another program has its port
                time.sleep(POLL_SECONDS)
                continue
            if taken is None:
                time.sleep(POLL_SECONDS)
                continue
            try:
                work(address, taken[0], lambda content: pack(answer(unpack(content))))
            except httpx.HTTPError as error:  # the SuperNode has ended, or given the task up
                log.warning("an answer could not be handed over: %s", error)
            heard = time.monotonic()
    finally:
        tasks.close()
