"""What a worker works with: module, data and Fabric, held from the first round to the last."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fedtalk.federation.client import ClientHalf
from fedtalk.federation.client_states import ClientStates
from fedtalk.federation.engines.ray.launch import WorkerSpec, launch
from fedtalk.federation.engines.ray.packing import Packed
from fedtalk.federation.local_work import Failure, LocalResult, LocalWork


class GivenUp(Exception):
    """The main process doesn't want the task's results any more."""


def arrays(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """As numpy arrays, which the object store takes as they are; `tensors` is the way back."""
    return {name: value.numpy() for name, value in state.items()}


def tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Copies: what the object store holds can't be written to, and is to be let go of."""
    return {name: torch.tensor(value) for name, value in state.items()}


class Desk:
    """Used by one thread only: torch keeps devices and numbers of threads by thread."""

    def __init__(self, packed: Packed, spec: WorkerSpec, meeting: tuple[str, int]) -> None:
        for chatty in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        torch.set_num_threads(spec.threads)
        federation = packed.open()
        fabric, wrapped = launch(spec, meeting, federation.module, federation.precision)
        federation.module.eval()
        self._first, self._clients = spec.rank == 0, ClientHalf(federation, fabric, wrapped)

    def work(
        self,
        names: Sequence[str],
        work: LocalWork,
        state: Mapping[str, Any],
        optimizers: Mapping[str, Any] | None,
        tell: Callable[[tuple[str, Any]], None],
        given_up: Callable[[], bool],
    ) -> None:
        """As `Worker.work`, which passes on what is told."""

        def on_step(name: str, step: int, losses: dict[str, float]) -> None:
            if self._first:
                tell(("step", (name, step, losses)))
            if given_up():
                raise GivenUp

        self._clients.states = SentStates(optimizers or {})
        done = []
        for name, result in self._clients.work_together(names, work, tensors(state), on_step):
            if isinstance(result, LocalResult):
                result.state = arrays(result.state)
            if self._first or isinstance(result, Failure):
                done.append((name, result))
        tell(("done", done))


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
