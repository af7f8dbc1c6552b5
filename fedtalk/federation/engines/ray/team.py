"""The workers that take a client together; one, for placement ``single``. They are started anew when one dies or hangs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from fedtalk.errors import ConfigurationError
from fedtalk.federation.deadline import GRACE, late
from fedtalk.federation.engines.ray.launch import WorkerSpec
from fedtalk.federation.engines.ray.resources import Share
from fedtalk.federation.engines.ray.session import WorkerError
from fedtalk.federation.engines.ray.worker import Worker
from fedtalk.federation.local_work import Failure, LocalWork, OnStep
from fedtalk.training.placement import Placement

log = logging.getLogger(__name__)

PARTING_SECONDS = 5.0
"""What workers have to come to the end of their step, when the fit is over or their task was given up."""
AGREEMENT_SECONDS = 10.0
"""What workers that take a client together have to fail too, once one of them has."""
MOST_DEATHS = 3
"""Starts in a row that may fail."""
START_SECONDS = 1800.0
"""What workers have to get ready, once they have a process."""


class Team:
    """Its workers' state as the main process knows it: without a process, getting ready, idle, at a task, or at one given up."""

    def __init__(self, kind: Placement, share: Share, setup: Any) -> None:
        """
        Args:
            kind: how many workers there are and what they are started for.
            share: of the machine or cluster, for each.
            setup: `Packed`, in the object store.
        """
        self.kind, self.share = kind, share
        self.clients: list[str] = []
        """Of the task under way that have no result yet."""
        self.was_ready = False
        """Whether it has been ready before, so that it isn't the configuration that keeps it from starting again."""
        self.asked_at = 0.0
        """When Ray was asked for its workers."""
        self._setup = setup
        self._actors: list[Any] = []
        self._group: Any = None
        self._hellos: list[Any] = []
        """Answers of workers that have no process yet."""
        self._getting_ready: list[Any] = []
        self._streams: list[Any] = []
        """What workers tell of the task, from those that haven't told all."""
        self._first: Any = None
        """Of them, the one that tells results."""
        self._endings: list[Any] = []
        """Answers of workers that are still at a task that was given up."""
        self._since = 0.0
        """When it began to get ready, or since when the task is given up."""
        self._deaths = 0
        self._begin_task(None)

    def _begin_task(self, on_step: OnStep | None, deadline_seconds: float | None = None) -> None:
        self._on_step, self._deadline_seconds = on_step, deadline_seconds
        self._results: list[tuple[str, Any]] = []
        self._rejected: dict[str, Failure] = {}
        """Clients of the task that a callback of the main process failed on."""
        self._failure: tuple[float, Failure] | None = None
        self._current: tuple[str, float] | None = None

    @property
    def homeless(self) -> bool:
        """Whether a worker waits for a process: Ray is starting it, or has no room for it."""
        return bool(self._hellos)

    @property
    def ready(self) -> bool:
        return not self._hellos and not self._getting_ready

    @property
    def idle(self) -> bool:
        return self.ready and not self.clients and not self._endings

    @property
    def endings(self) -> list[Any]:
        """What there is to be heard of a task that was given up."""
        return list(self._endings)

    @property
    def awaited(self) -> list[Any]:
        """What there is to be heard of, for ``ray.wait``."""
        return [*self._hellos, *self._getting_ready, *self._streams, *self._endings]

    def start(self) -> None:
        """Ask Ray for the workers and let them get ready."""
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        share, count = self.share, self.kind.processes
        threads = str(share.threads)
        options: dict[str, Any] = {
            "num_cpus": share.cpus, "num_gpus": share.gpus, "resources": share.resources, "max_restarts": 0,
            "scheduling_strategy": "SPREAD",
            "runtime_env": {"env_vars": {
                "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive"}},
        }  # fmt: skip
        actor = ray.remote(Worker)
        if count > 1:
            self._group = placement_group([share.need] * count, strategy="PACK")
        for rank in range(count):
            if self._group is not None:
                options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(self._group, rank)
            self._actors.append(actor.options(**options).remote())
        self._hellos = [worker.meeting.remote() for worker in self._actors]
        device = "cuda" if share.gpus else "cpu"
        self._getting_ready = [
            worker.get_ready.remote(self._setup, WorkerSpec(self.kind, rank, device, share.threads), self._hellos[0])
            for rank, worker in enumerate(self._actors)
        ]
        self.asked_at = time.monotonic()

    def give(
        self, clients: list[str], work: LocalWork, state: Any, on_step: OnStep, optimizers: Mapping[str, Any] | None
    ) -> None:
        """Hand a task to a team that is idle.

        Args:
            clients: whose.
            work: what they are asked for.
            state: what they start from, in the object store.
            on_step: after each step, in this process.
            optimizers: as `Worker.work` takes them.
        """
        self._begin_task(on_step, work.local.deadline_seconds)
        self.clients = list(clients)
        self._streams = [
            worker.work.options(num_returns="streaming").remote(clients, work, state, optimizers)
            for worker in self._actors
        ]
        self._first = self._streams[0]

    def give_up(self) -> None:
        """Want no results of the task under way. A single worker ends it after its step; several go on, in step, to its end."""
        import ray

        if self.kind.processes == 1:
            ray.cancel(self._streams[0])
        self._streams, self.clients = [], []
        self._endings = [worker.idle.remote() for worker in self._actors]
        self._since = time.monotonic()

    def hear(self, item: Any) -> Iterator[tuple[str, Any]]:
        """Take in one of what was awaited; yields the clients of a task that is done or lost.

        Raises:
            ConfigurationError: it can't be started at all.
            WorkerError: its starts fail again and again.
        """
        import ray

        if not any(item is awaited for awaited in self.awaited):  # it was started anew meanwhile
            return
        try:
            told = ray.get(next(item) if item in self._streams else item)
        except (ray.exceptions.RayError, StopIteration) as error:
            yield from self._ended(_ending(error))
            return
        if item in self._streams:
            yield from self._told(item, *told)
        elif item in self._hellos:
            self._hellos.remove(item)
            self._since = time.monotonic()
        elif item in self._getting_ready:
            self._getting_ready.remove(item)
            if told is not None:
                yield from self._broken(told)
            elif self.ready:
                self.was_ready, self._deaths = True, 0
        else:
            self._endings.remove(item)

    def _broken(self, failure: Failure) -> Iterator[tuple[str, Any]]:
        if not self.was_ready:
            raise ConfigurationError(f"a worker can't start: {failure}; see trainer.workers and trainer.placements")
        log.warning("a worker could not start again: %s", failure)
        yield from self._ended(f"with {failure}")

    def _told(self, stream: Any, kind: str, content: Any) -> Iterator[tuple[str, Any]]:
        if kind == "started":
            self._current = self._current or (content, time.monotonic())
        elif kind == "log":
            log.log(content[0], "%s", content[1])
        elif kind == "step":
            assert self._on_step is not None
            try:
                self._on_step(*content)
            except Exception as error:  # as in one process, where it would come up within the client's step
                self._rejected[content[0]] = Failure.of(error)
        else:
            self._streams.remove(stream)
            if stream is self._first:
                self._results = content
            failures = [result for _, result in content if isinstance(result, Failure)]
            if failures and self._failure is None:
                self._failure = time.monotonic(), failures[0]
            if not self._streams:
                yield from self._close()

    def _close(self) -> Iterator[tuple[str, Any]]:
        results, self.clients = self._results, []
        failures = [result for _, result in results if isinstance(result, Failure)]
        if self._failure is not None:
            failures.append(self._failure[1])
        if any(failure.device_lost for failure in failures):
            log.warning("a worker can't use its device any more; it is started again")
            self._restart()
        for client, result in results:
            yield client, self._rejected.get(client, result)

    def overdue(self) -> Iterator[tuple[str, Any]]:
        """Wait no longer for workers that don't get ready, that hang past their client's deadline, that wait for one that has
        failed, or that were given up and don't come to an end."""
        now = time.monotonic()
        if self._endings:
            if now - self._since > PARTING_SECONDS:
                log.warning(
                    "a worker is still at a task that was given up %g s ago; it is started again", PARTING_SECONDS
                )
                self._restart()
        elif self._getting_ready and not self._hellos:
            if now - self._since > START_SECONDS:
                yield from self._ended(f"after {START_SECONDS:.0f} s of getting ready")
        elif self._failure is not None and self.clients and now - self._failure[0] > AGREEMENT_SECONDS:
            yield from self._lost(self._failure[1])
        elif self._current is not None and self.clients and self._deadline_seconds is not None:
            client, since = self._current
            allowed = self._deadline_seconds + (GRACE if self.kind.kind == "single" else 0.0)
            if now - since > allowed:
                yield from self._lost(Failure.of(late(client, "still at work", now - since, self._deadline_seconds)))

    def _ended(self, how: str) -> Iterator[tuple[str, Any]]:
        self._deaths = 0 if self.ready else self._deaths + 1
        if self._deaths >= MOST_DEATHS:
            raise WorkerError(
                f"a worker for {self.kind} ended {self._deaths} times before it was ready, the last time {how}; "
                "expected it to start. Is there enough memory? Lower trainer.workers or placement.processes."
            )
        yield from self._lost(Failure.of(WorkerError(f"the worker that trained it ended {how}")))

    def _lost(self, failure: Failure) -> Iterator[tuple[str, Any]]:
        clients, self.clients = self.clients, []
        log.warning("%s; it is started again", failure.message if clients else "a worker without a task ended")
        self._restart()
        for client in clients:
            yield client, self._rejected.get(client, failure)

    def _restart(self) -> None:
        self.end()
        self.start()

    def end(self) -> None:
        """End the workers by force, as far as the cluster can still be reached."""
        import ray
        from ray.util.placement_group import remove_placement_group

        with suppress(ray.exceptions.RayError):
            for worker in self._actors:
                ray.kill(worker)
            if self._group is not None:
                remove_placement_group(self._group)
        self._actors, self._group = [], None
        self._hellos, self._getting_ready, self._streams, self._endings = [], [], [], []


def _ending(error: Exception) -> str:
    """In one line, of what Ray tells in many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    told = next((line for line in lines if " because " in line), lines[0])
    told = told.split("Worker exit detail: ")[-1].split(" Some common causes")[0]
    return f"({type(error).__name__}: {told})"
