"""The engine of several processes: workers take different clients, or several take one client together.

They are started once for a fit. The server, the sealing and all secrets stay in the main process; a worker is sent the global
state and clients' names, and does their local work (`fedtalk.federation.worker`).
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import tempfile
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedtalk.cores import usable_cores
from fedtalk.data.source import PreparedCache
from fedtalk.errors import ConfigurationError, FedTalkError, OutputError
from fedtalk.federation import worker
from fedtalk.federation.deadline import GRACE, late
from fedtalk.federation.engines.in_process import Failure, InProcess
from fedtalk.federation.federation import Federation
from fedtalk.federation.local_work import LocalResult, LocalWork, OnStep
from fedtalk.federation.placement import SINGLE, Placement
from fedtalk.federation.worker import Seat, receive
from fedtalk.storage import PART

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
"""How long a signal or a deadline may go unnoticed."""
PARTING_SECONDS = 5.0
"""What workers have to come to the end of their step, when the fit is over or their task was given up."""
AGREEMENT_SECONDS = 10.0
"""What processes that take a client together have to fail too, once one of them has."""
MOST_DEATHS = 3
"""Starts in a row that may fail."""
START_SECONDS = 600.0
"""What processes have to get ready."""


class WorkerError(FedTalkError):
    """A worker process ended before its time."""


class Workers(InProcess):
    """Clients' local work in worker processes; all else as in one process, to the same bits."""

    isolates = True

    def __init__(self, workers: int, threads: int | None) -> None:
        """
        Args:
            workers: processes that take different clients, for placement ``single``.
            threads: CPU threads of each process; by default the cores are shared out among those that work at once.
        """
        self._workers, self._threads = workers, threads
        self._teams: dict[Placement, list[Team]] = {}
        self._setup: Path | None = None

    @property
    def at_once(self) -> int:
        return self._workers

    def start(self, federation: Federation, check_stop: Callable[[], None]) -> None:
        """Start the processes and wait until they are ready.

        Raises:
            ConfigurationError: model or data can't be sent to other processes.
            WorkerError: they don't start.
        """
        super().start(federation, check_stop)
        self._teams = self._form_teams(federation)
        for team in self._all:
            team.start()
        while any(team.starting for team in self._all):
            for _ in self._hear(self._all):
                pass
            check_stop()

    def _form_teams(self, federation: Federation) -> dict[Placement, list[Team]]:
        """The teams of each kind, not yet started."""
        kinds = sorted({_team_kind(federation.placements.of(client)) for client in federation.data.clients}, key=repr)
        counts = {kind: self._workers if kind.kind == "single" else 1 for kind in kinds}
        at_once = max(count * kind.processes for kind, count in counts.items())
        threads = self._threads or max(1, usable_cores() // at_once)
        self._setup = self._write_setup(federation)
        gpus = torch.cuda.device_count() if federation.device.type == "cuda" else 0
        return {
            kind: [LocalTeam(kind, self._setup, threads, number, gpus) for number in range(count)]
            for kind, count in counts.items()
        }

    def stop(self) -> None:
        """End all processes: idle ones at once, others at the end of their step or after `PARTING_SECONDS`."""
        for team in self._all:
            team.dismiss()
        end = time.monotonic() + PARTING_SECONDS
        for team in self._all:
            team.end(max(0.0, end - time.monotonic()))
        self._teams = {}
        if self._setup is not None:
            self._setup.unlink(missing_ok=True)
            self._setup = None

    @property
    def _all(self) -> list[Team]:
        return [team for teams in self._teams.values() for team in teams]

    def _write_setup(self, federation: Federation) -> Path:
        setup = replace(federation, cache=PreparedCache(federation.cache.folder))  # and not the clips that it holds
        handle, name = tempfile.mkstemp(prefix=f"{PART}workers-", suffix=".pt", dir=federation.run_dir)
        os.close(handle)
        try:
            with Path(name).open("wb") as file:
                torch.save(setup, file)
        except (pickle.PicklingError, TypeError, AttributeError, OSError, RuntimeError) as error:
            Path(name).unlink()
            full = error if isinstance(error, OSError) else error.__context__  # torch tells of it as a RuntimeError
            if isinstance(full, OSError):
                raise OutputError(
                    f"writing {name}, what workers start from, failed: {full.strerror or full}. Expected room for the model and "
                    "its backbone; free some space or choose another folder with --trainer.default_root_dir"
                ) from error
            if isinstance(error, RuntimeError):
                raise
            raise ConfigurationError(
                f"trainer.workers: model and data are sent to the workers, and {type(error).__name__}: {error}. Expected classes "
                "that can be imported and objects that can be pickled; else use workers: 1 and placement single"
            ) from error
        return Path(name)

    def local_results(
        self, work: LocalWork, clients: Sequence[str], state: Mapping[str, Tensor], on_step: OnStep
    ) -> Generator[tuple[str, LocalResult | Failure], None, None]:
        """Placement by placement, so that no more processes compute at once than the largest of them asks for."""
        by_kind: dict[Placement, deque[list[str]]] = {}
        for group in self.federation.placements.groups(clients):
            by_kind.setdefault(_team_kind(self.federation.placements.of(group[0])), deque()).append(group)
        sent = worker.arrays(state)
        try:
            for kind, tasks in by_kind.items():
                teams = self._teams[kind]
                while tasks or any(team.clients and not team.given_up for team in teams):
                    for team in teams:
                        if tasks and team.idle:
                            team.give(work, tasks.popleft(), sent, on_step)
                    for client, result in self._hear(teams):
                        if not isinstance(result, Failure):
                            result.state = worker.tensors(result.state)
                        yield client, result
                    self.check_stop()
        finally:
            for team in self._all:
                if team.clients and not team.given_up:
                    team.give_up()

    def _hear(self, teams: Sequence[Team]) -> Iterator[tuple[str, Any]]:
        """What has come from the teams within `POLL_SECONDS`: clients with their results or failures."""
        ready = wait([connection for team in teams for connection in team.connections], timeout=POLL_SECONDS)
        self.check_stop()  # a signal to all processes is no fault of theirs
        for team in teams:
            for connection in [connection for connection in team.connections if connection in ready]:
                yield from self._message(team, connection)
            yield from team.overdue()

    def _message(self, team: Team, connection: Connection) -> Iterator[tuple[str, Any]]:
        if connection not in team.connections:  # the team was started anew meanwhile
            return
        try:
            kind, content = receive(connection)
        except (EOFError, ConnectionError, TimeoutError):
            yield from team.died(connection)
            return
        if kind == "broken" and team.proven:
            log.warning(
                "a worker could not start again: %s", content
            )  # and is started once more when its end is noticed
            return
        if kind == "broken":
            raise ConfigurationError(f"a worker can't start: {content}; see trainer.workers and trainer.placements")
        if kind == "step":
            client, step, losses = content
            if team.given_up:
                return
            try:
                team.on_step(client, step, losses)
            except Exception as error:  # as in one process, where it would come up within the client's step
                team.rejected[client] = Failure.of(error)
            return
        yield from team.heard(connection, kind, content)


class Team(ABC):
    """The processes that take a client together; one, for placement ``single``."""

    patience = PARTING_SECONDS
    """Seconds that they have to come to an end with a task that was given up."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self.connections: list[Connection] = []
        self.on_step: OnStep
        """Of the task under way, in the main process."""
        self.clients: list[str] = []
        """Of the task under way that have no result yet."""
        self.rejected: dict[str, Failure] = {}
        """Clients of the task that a callback of the main process failed on."""
        self._silent: set[Connection] = set()
        """Who owes an answer: that it is ready, or that it is done."""
        self._results: list[tuple[str, Any]] = []
        self._failure: tuple[float, Failure] | None = None
        self._current: tuple[str, float] | None = None
        self._deadline_seconds: float | None = None
        self._ready = False
        self.proven = False
        """Whether it has been ready before, so that it isn't the configuration that keeps it from starting again."""
        self.given_up_at: float | None = None
        """Since when what comes of the task under way is not wanted any more."""

    @property
    def starting(self) -> bool:
        return not self._ready

    @property
    def given_up(self) -> bool:
        return self.given_up_at is not None

    @property
    def idle(self) -> bool:
        return self._ready and not self.clients

    @abstractmethod
    def start(self) -> None:
        """Begin to get ready."""

    @abstractmethod
    def died(self, connection: Connection) -> Iterator[tuple[str, Any]]:
        """A process is gone, and with it the updates of its task, which are yielded as failures."""

    @abstractmethod
    def _lost(self, failure: Failure) -> Iterator[tuple[str, Any]]:
        """Nothing is to be waited for any more of the task under way."""

    @abstractmethod
    def end(self, patience: float) -> None:
        """End the processes, after ``patience`` seconds in which they may do so by themselves."""

    def give(self, work: LocalWork, clients: list[str], state: dict[str, Any], on_step: OnStep) -> None:
        """Hand a task to a team that is idle."""
        self.on_step, self._deadline_seconds = on_step, work.local.deadline_seconds
        self.clients, self._results, self._failure, self._current = list(clients), [], None, None
        self.rejected, self.given_up_at = {}, None
        self._silent = set(self.connections)
        for connection in self.connections:
            with contextlib.suppress(OSError):  # a process that died idle is found out by its silence
                worker.send(connection, (work, clients, state, self._optimizers(clients, work)))

    def _optimizers(self, clients: Sequence[str], work: LocalWork) -> dict[str, Any] | None:
        """Clients' optimizer states that a task must bring; None where the processes read them from the run's folder."""
        return None

    def give_up(self) -> None:
        """Want no results of the task under way. A single process ends it after its step; several go on, in step, to its end."""
        self.given_up_at = time.monotonic()
        if self.placement.processes == 1:
            with contextlib.suppress(OSError):
                worker.send(self.connections[0], None)

    def heard(self, connection: Connection, kind: str, content: Any) -> Iterator[tuple[str, Any]]:
        """Take in a message; yields the clients of a task that is done."""
        if kind == "started":
            self._current = content, time.monotonic()
            return
        self._silent.discard(connection)
        if kind == "ready":
            self._ready = not self._silent
            self.proven = self.proven or self._ready
            return
        if connection is self.connections[0]:
            self._results = content
        failures = [result for _, result in content if isinstance(result, Failure)]
        if failures and self._failure is None:
            self._failure = time.monotonic(), failures[0]
        if not self._silent:
            yield from self._close()

    def _close(self) -> Iterator[tuple[str, Any]]:
        results, self.clients = self._results, []
        for client, result in [] if self.given_up else results:
            yield client, self.rejected.get(client, result)

    def overdue(self) -> Iterator[tuple[str, Any]]:
        """Wait no longer for processes that hang past their client's deadline, that wait for one that has failed, or that were
        given up and don't come to an end."""
        now = time.monotonic()
        if not self.clients:
            return
        if self.given_up_at is not None:
            if now - self.given_up_at > self.patience:
                yield from self._lost(Failure("Late", "a worker is still at work that was given up"))
        elif self._failure is not None and now - self._failure[0] > AGREEMENT_SECONDS:
            yield from self._lost(self._failure[1])
        elif self._current is not None and self._deadline_seconds is not None:
            client, since = self._current
            allowed = self._deadline_seconds + (GRACE if self.placement.kind == "single" else 0.0)
            if now - since > allowed:
                yield from self._lost(Failure.of(late(client, "still at work", now - since, self._deadline_seconds)))

    def dismiss(self) -> None:
        """Let the processes end by themselves: idle ones do at once, others when they next report a step."""
        for connection in self.connections:
            connection.close()
        self.connections = []


class LocalTeam(Team):
    """Processes on this machine, started anew when one of them dies or hangs."""

    def __init__(self, placement: Placement, setup: Path, threads: int, number: int, gpus: int) -> None:
        """
        Args:
            placement: kind, number of processes and what else they are started for.
            setup: file of a `Federation`.
            threads: CPU threads of each.
            number: of this team among those of its placement.
            gpus: on this machine; 0 to work on the CPU.
        """
        super().__init__(placement)
        self._setup, self._threads, self._number, self._gpus = setup, threads, number, gpus
        self._processes: list[Any] = []
        self._lifelines: list[Connection] = []
        self._deaths, self._started_at = 0, 0.0

    def start(self) -> None:
        context = _context(on_gpu=self._gpus > 0)
        port = _free_port() if self.placement.processes > 1 else 0
        for rank in range(self.placement.processes):
            device = (
                f"cuda:{(rank if self.placement.processes > 1 else self._number) % self._gpus}" if self._gpus else "cpu"
            )
            seat = Seat(self.placement, rank, port, device, self._threads)
            own, other = context.Pipe()
            other_end, lifeline = context.Pipe(duplex=False)
            process = context.Process(target=worker.main, args=(other, other_end, self._setup, seat), daemon=True)
            process.start()
            other.close()
            other_end.close()
            self._processes.append(process)
            self.connections.append(own)
            self._lifelines.append(lifeline)
        self._silent, self._ready, self._started_at = set(self.connections), False, time.monotonic()

    def overdue(self) -> Iterator[tuple[str, Any]]:
        """As any team's; and processes that don't get ready count as ended."""
        if self.starting and time.monotonic() - self._started_at > START_SECONDS:
            yield from self._ended(f"after {START_SECONDS:.0f} s of getting ready")
        else:
            yield from super().overdue()

    def _close(self) -> Iterator[tuple[str, Any]]:
        failures = [result for _, result in self._results if isinstance(result, Failure)]
        if self._failure is not None:
            failures.append(self._failure[1])
        told = list(super()._close())
        if any(failure.device_lost for failure in failures):
            log.warning("a worker can't use its device any more; it is started again")
            self.end(0.0)
            self.start()
        yield from told

    def died(self, connection: Connection) -> Iterator[tuple[str, Any]]:
        """A process is gone: so are the updates of its task, and the team starts anew.

        Raises:
            WorkerError: that has happened again and again before it was ready.
        """
        process = self._processes[self.connections.index(connection)]
        process.join(1.0)
        yield from self._ended(_ending(process.exitcode))

    def _ended(self, how: str) -> Iterator[tuple[str, Any]]:
        self._deaths = 0 if self._ready else self._deaths + 1
        if self._deaths >= MOST_DEATHS:
            raise WorkerError(
                f"a worker for {self.placement} ended {self._deaths} times before it was ready, the last time {how}; "
                "expected it to start. Is there enough memory? Lower trainer.workers or placement.processes."
            )
        yield from self._lost(Failure.of(WorkerError(f"the worker process that trained it ended {how}")))

    def _lost(self, failure: Failure) -> Iterator[tuple[str, Any]]:
        clients, self.clients = self.clients, []
        log.warning("%s; it is started again", failure.message if clients else "an idle worker process ended")
        self.end(0.0)
        self.start()
        for client in [] if self.given_up else clients:
            yield client, self.rejected.get(client, failure)

    def end(self, patience: float) -> None:
        """End the processes, by force after ``patience`` seconds."""
        self.dismiss()
        end = time.monotonic() + patience
        for process in self._processes:
            process.join(max(0.0, end - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
            process.close()
        for lifeline in self._lifelines:
            lifeline.close()
        self._processes, self._lifelines = [], []


def _context(on_gpu: bool) -> Any:
    """How processes come to be: from a server that has imported what they need, or, where CUDA forbids forks, anew."""
    if on_gpu or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([worker.__name__])
    return context


def _team_kind(placement: Placement) -> Placement:
    """What processes must be started for; the rest a process can do for each client as it likes."""
    if placement.kind == "single":
        return SINGLE
    return replace(SINGLE, kind=placement.kind, processes=placement.processes, precision=placement.precision,
                   cpu_offload=placement.cpu_offload)  # fmt: skip


def _ending(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "by SIGKILL (the system's, where memory has run out)"
    if code is not None and code < 0:
        return f"by {signal.Signals(-code).name}"
    return f"with exit code {code}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
