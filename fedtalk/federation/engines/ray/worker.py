"""A worker: an actor that holds the module from the first round to the last and does the local work of clients."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fedtalk.federation.client import ClientHalf
from fedtalk.federation.client_states import ClientStates
from fedtalk.federation.engines.in_process import Failure
from fedtalk.federation.engines.ray.launch import Seat, launch
from fedtalk.federation.engines.ray.packing import Packed
from fedtalk.federation.local_work import LocalWork

POLL_SECONDS = 0.2
"""How long a cancelled task may go unnoticed."""
Message = tuple[str, Any]


class GivenUp(Exception):
    """The main process doesn't want the task's results any more."""


def arrays(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """As numpy arrays, which the object store takes as they are; `tensors` is the way back."""
    return {name: value.numpy() for name, value in state.items()}


def tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Copies: what the object store holds can't be written to, and is to be let go of."""
    return {name: torch.tensor(value) for name, value in state.items()}


class Worker:
    """Everything it is asked for is done in one and the same thread of its own, so that it can be told to stop meanwhile."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._clients: ClientHalf
        self._seat: Seat

    def meeting(self) -> tuple[str, int]:
        """An address of this machine and a port that is free: where processes that take a client together can meet."""
        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def get_ready(self, packed: Packed, seat: Seat, meeting: tuple[str, int]) -> Failure | None:
        """Hold the module and the data; the failure, where that can't be done."""
        try:
            self._thread.submit(self._hold, packed, seat, meeting).result()
        except Exception as error:  # told by the main process, in whose log it belongs
            return Failure.of(error)
        return None

    def _hold(self, packed: Packed, seat: Seat, meeting: tuple[str, int]) -> None:
        for chatty in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        torch.set_num_threads(seat.threads)
        federation = packed.open()
        fabric, wrapped = launch(seat, meeting, federation.module, federation.precision)
        federation.module.eval()
        self._seat, self._clients = seat, ClientHalf(federation, fabric, wrapped)

    def idle(self) -> None:
        """Answers when the tasks before it have come to their ends."""

    def work(
        self, names: Sequence[str], work: LocalWork, state: Mapping[str, Any], optimizers: Mapping[str, Any] | None
    ) -> Iterator[Message]:
        """The local work of clients, told as it goes.

        Args:
            names: of the clients.
            work: what they are asked for.
            state: what they start from, as `arrays`.
            optimizers: clients' optimizer states, or the error where one couldn't be read; None where none are kept.

        Yields:
            ``("started", clients)``, then ``("step", (client, step, losses))`` and ``("log", (level, text))``; at the end
            ``("done", [(client, LocalResult or Failure), ...])``, of processes that take clients together whole from the first
            one, and failures only from the others.
        """
        import ray

        told: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        given_up = threading.Event()
        self._clients.states = SentStates(optimizers or {})
        forward = _Forward(told)
        logging.getLogger("fedtalk").addHandler(forward)
        try:
            task = self._thread.submit(self._do, names, work, tensors(state), told, given_up)
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

    def _do(
        self,
        names: Sequence[str],
        work: LocalWork,
        start: Mapping[str, Tensor],
        told: queue.SimpleQueue[Message | None],
        given_up: threading.Event,
    ) -> None:
        first = self._seat.rank == 0

        def on_step(name: str, step: int, losses: dict[str, float]) -> None:
            if first:
                told.put(("step", (name, step, losses)))
            if given_up.is_set():
                raise GivenUp

        done = []
        for name, result in self._clients.work_together(names, work, start, on_step):
            # As in one process, an error costs this result only.
            kept = Failure.of(result) if isinstance(result, Exception) else replace(result, state=arrays(result.state))
            del result  # the next client needs the memory that an error's traceback keeps
            if first or isinstance(kept, Failure):
                done.append((name, kept))
        told.put(("done", done))


class SentStates(ClientStates):
    """Clients' optimizer states as they came with a task: the run's folder is the main process's."""

    def __init__(self, states: Mapping[str, dict[str, Any] | Exception | None]) -> None:
        """
        Args:
            states: by client; an error is raised where the state is asked for.
        """
        self._states = states

    def load(self, client: str, round_number: int) -> dict[str, Any] | None:
        state = self._states[client]
        if isinstance(state, Exception):
            raise state
        return state


class _Forward(logging.Handler):
    """Warnings of the work go to the main process's log."""

    def __init__(self, told: queue.SimpleQueue[Message | None]) -> None:
        super().__init__(logging.WARNING)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        self._told.put(("log", (record.levelno, record.getMessage())))
