"""The engine above one process: workers take different clients, or several take one client together, here or on a cluster."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fedtalk.errors import ConfigurationError, OutputError
from fedtalk.federation.engines.in_process import InProcess
from fedtalk.federation.engines.ray.desk import arrays, tensors
from fedtalk.federation.engines.ray.packing import Packed, pack
from fedtalk.federation.engines.ray.resources import Share, shares, teams_of, worker_kind
from fedtalk.federation.engines.ray.session import Session, WorkerError, cluster_room, open_session, require_ray
from fedtalk.federation.engines.ray.team import PARTING_SECONDS, Team
from fedtalk.federation.federation import Federation
from fedtalk.federation.local_work import Failure, LocalResult, LocalWork, OnStep
from fedtalk.machine import usable_cores
from fedtalk.training.placement import Placement

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
"""How long a signal or a deadline may go unnoticed."""
PATIENCE_SECONDS = 30.0
"""How long a fit waits for all of its workers once it has some of each kind."""
ROOM_SECONDS = 600.0
"""How long it waits for the first worker of a kind, at the start or after all were lost: a cluster may have to grow."""


class RayEngine(InProcess):
    """Clients' local work in Ray's actors; all else as in one process, to the same bits."""

    isolates = True

    def __init__(self, workers: int, threads: int | None) -> None:
        """
        Args:
            workers: processes that take different clients, for placement ``single``.
            threads: CPU threads of each process; by default the cores are shared out among those that work at once.

        Raises:
            ConfigurationError: Ray is not installed.
        """
        require_ray()
        self._workers, self._threads = workers, threads
        self._teams: dict[Placement, list[Team]] = {}
        self._session: Session | None = None

    @property
    def at_once(self) -> int:
        return self._workers

    def start(self, federation: Federation, check_stop: Callable[[], None]) -> None:
        """Start the workers and wait until they are ready.

        Raises:
            ConfigurationError: model or data can't be sent to other processes, or there are too few GPUs.
            WorkerError: the workers don't start.
        """
        super().start(federation, check_stop)
        packed = _packed(federation)
        counts = teams_of(map(federation.placements.of, federation.data.clients), self._workers)
        self._session, given = self._join(counts, on_gpu=federation.device.type == "cuda")
        setup = _put(packed)
        self._teams = {kind: [Team(kind, given[kind], setup) for _ in range(count)] for kind, count in counts.items()}
        for team in self._all:
            team.start()
        self._await_workers()

    def _join(self, counts: Mapping[Placement, int], on_gpu: bool) -> tuple[Session, dict[Placement, Share]]:
        """Be connected to Ray, and know what each worker gets of it."""
        alone = shares(counts, self._threads, usable_cores(), torch.cuda.device_count(), on_gpu, bounded=False)
        session = open_session(
            [alone[kind].need for kind, count in counts.items() for _ in range(count * kind.processes)]
        )
        if session.started:
            return session, alone
        room = cluster_room()
        return session, shares(counts, self._threads, room.get("CPU", 1.0), room.get("GPU", 0.0), on_gpu, bounded=True)

    def _await_workers(self) -> None:
        """Until all are ready; or some of each kind, where a cluster has no room for more."""
        enough_at: float | None = None
        while not all(team.ready for team in self._all):
            for _ in self._hear():
                pass
            self.check_stop()
            if not all(any(team.ready for team in teams) for teams in self._teams.values()):
                for kind in self._teams:
                    self._check_room(kind)
                continue
            enough_at = enough_at or time.monotonic()
            if time.monotonic() - enough_at > PATIENCE_SECONDS and all(
                team.ready or team.homeless for team in self._all
            ):
                waiting = [team for team in self._all if not team.ready]
                log.warning(
                    "%d of %d workers have no room and join when there is some: one needs %s, all nodes together have %s",
                    len(waiting), len(self._all), waiting[0].share, _told(cluster_room()),
                )  # fmt: skip
                return

    def _check_room(self, kind: Placement) -> None:
        """
        Raises:
            WorkerError: no worker of this kind has had a process for `ROOM_SECONDS`.
        """
        teams = self._teams[kind]
        if all(team.homeless and time.monotonic() - team.asked_at > ROOM_SECONDS for team in teams):
            raise WorkerError(
                f"no worker for {kind} was started within {ROOM_SECONDS:g} s: each needs {teams[0].share}, all nodes together "
                f"have {_told(cluster_room())}; expected nodes with that much that is free. Lower placement.processors, gpus or "
                "resources, or add nodes and go on with --ckpt_path last"
            )

    def stop(self) -> None:
        """End all workers: idle ones at once, others at the end of their step or after `PARTING_SECONDS`."""
        if self._session is None:
            return
        import ray

        for team in self._all:
            if team.clients:
                team.give_up()
        waiting = [ending for team in self._all for ending in team.endings]
        if waiting:
            ray.wait(waiting, num_returns=len(waiting), timeout=PARTING_SECONDS)
        for team in self._all:
            team.end()
        self._teams = {}
        self._session.close()
        self._session = None

    @property
    def _all(self) -> list[Team]:
        return [team for teams in self._teams.values() for team in teams]

    def local_results(
        self, work: LocalWork, clients: Sequence[str], state: Mapping[str, Tensor], on_step: OnStep
    ) -> Generator[tuple[str, LocalResult | Failure], None, None]:
        """Placement by placement, so that no more processes compute at once than the largest of them asks for."""
        import ray

        by_kind: dict[Placement, deque[list[str]]] = {}
        for group in self.federation.placements.groups(clients):
            by_kind.setdefault(worker_kind(self.federation.placements.of(group[0])), deque()).append(group)
        sent = ray.put(arrays(state))
        try:
            for kind, tasks in by_kind.items():
                teams = self._teams[kind]
                while tasks or any(team.clients for team in teams):
                    for team in teams:
                        if tasks and team.idle:
                            task = tasks.popleft()
                            team.give(task, work, sent, on_step, self._optimizers(task, work))
                    for client, result in self._hear():
                        if not isinstance(result, Failure):
                            result.state = tensors(result.state)
                        yield client, result
                    self.check_stop()
                    self._check_room(kind)
        finally:
            for team in self._all:
                if team.clients:
                    team.give_up()

    def _optimizers(self, clients: Sequence[str], work: LocalWork) -> dict[str, Any] | None:
        """Clients' optimizer states, which a task brings; the error, where one can't be read."""
        if not work.local.keep_optimizer:
            return None
        found: dict[str, Any] = {}
        for client in clients:
            try:
                found[client] = self.federation.client_states.load(client, work.round_number)
            except Exception as error:  # as in one process, it costs this client's update
                found[client] = error
        return found

    def _hear(self) -> Iterator[tuple[str, Any]]:
        """What has come from the workers within `POLL_SECONDS`: clients with their results or failures."""
        import ray

        awaited = {item: team for team in self._all for item in team.awaited}
        ready: list[Any] = []
        if awaited:
            ready, _ = ray.wait(list(awaited), num_returns=1, timeout=POLL_SECONDS)
        if ready:  # and whatever else is there already
            ready, _ = ray.wait(list(awaited), num_returns=len(awaited), timeout=0)
        self.check_stop()  # a signal to all processes is no fault of theirs
        for item in ready:
            yield from awaited[item].hear(item)
        for team in self._all:
            yield from team.overdue()


def _packed(federation: Federation) -> Packed:
    """
    Raises:
        ConfigurationError: something of it can't be sent.
    """
    try:
        return pack(federation)
    except Exception as error:  # whatever a class does when it is pickled
        raise ConfigurationError(
            f"trainer.workers: model and data are sent to the workers, and {type(error).__name__}: {error}. Expected objects "
            "that can be pickled; else use workers: 1 and placement single"
        ) from error


def _put(packed: Packed) -> Any:
    """
    Raises:
        OutputError: the object store has no room for it.
    """
    import ray

    try:
        return ray.put(packed)
    except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError) as error:
        size = sum(array.nbytes for array in packed.frozen) + len(packed.content)
        raise OutputError(
            f"Ray's object store has no room for the {size / 1e6:.0f} MB that workers start from, nor has the disk that it "
            "falls back on; expected both to be larger than the model. Free some space, or start Ray with a larger "
            "--object-store-memory"
        ) from error


def _told(room: Mapping[str, float]) -> str:
    shown = {name: amount for name, amount in room.items() if "memory" not in name}
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(shown.items())) or "nothing"
