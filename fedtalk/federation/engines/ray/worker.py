"""A worker: an actor that holds the module from the first round to the last and does the local work of clients.

This file imports nothing that takes long, so that a worker answers as soon as it has a process.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedtalk.federation.engines.ray.desk import Desk
    from fedtalk.federation.engines.ray.launch import WorkerSpec
    from fedtalk.federation.engines.ray.packing import Packed
    from fedtalk.federation.local_work import Failure, LocalWork

POLL_SECONDS = 0.2
"""How long a cancelled task may go unnoticed."""
Message = tuple[str, Any]


class Worker:
    """Everything it is asked for is done in one and the same thread of its own, so that it can be told to stop meanwhile."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._desk: Desk

    def meeting(self) -> tuple[str, int]:
        """An address of this machine and a port that is free: where processes that take a client together can meet."""
        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def get_ready(self, packed: Packed, spec: WorkerSpec, meeting: tuple[str, int]) -> Failure | None:
        """Hold the module and the data; the failure, where that can't be done."""
        from fedtalk.federation.engines.ray.desk import Desk
        from fedtalk.federation.local_work import Failure

        try:
            self._desk = self._thread.submit(Desk, packed, spec, meeting).result()
        except Exception as error:  # told by the main process, in whose log it belongs
            return Failure.of(error)
        return None

    def idle(self) -> None:
        """Answers when the tasks before it have come to their ends."""

    def work(
        self, names: Sequence[str], work: LocalWork, state: Mapping[str, Any], optimizers: Mapping[str, Any] | None
    ) -> Iterator[Message]:
        """The local work of clients, told as it goes.

        Args:
            names: of the clients.
            work: what they are asked for.
            state: what they start from, as arrays.
            optimizers: clients' optimizer states, or the error where one couldn't be read; None where none are kept.

        Yields:
            ``("started", clients)``, then ``("step", (client, step, losses))`` and ``("log", (level, text))``; at the end
            ``("done", [(client, LocalResult or Failure), ...])``, of processes that take clients together whole from the first
            one, and failures only from the others.
        """
        import ray

        told: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        given_up = threading.Event()
        forward = _Forward(told)
        logging.getLogger("fedtalk").addHandler(forward)
        try:
            task = self._thread.submit(self._desk.work, names, work, state, optimizers, told.put, given_up.is_set)
            task.add_done_callback(lambda _: told.put(None))
            yield "started", " and ".join(names)
            while True:
                if ray.get_runtime_context().is_canceled():
                    given_up.set()
                with contextlib.suppress(queue.Empty):
                    message = told.get(timeout=POLL_SECONDS)
                    if message is None:
                        break
                    yield message
            task.result()
        finally:
            logging.getLogger("fedtalk").removeHandler(forward)


class _Forward(logging.Handler):
    """Warnings of the work go to the main process's log."""

    def __init__(self, told: queue.SimpleQueue[Message | None]) -> None:
        super().__init__(logging.WARNING)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        self._told.put(("log", (record.levelno, record.getMessage())))
