"""Ray itself: joined where there is a cluster, started where there is none, and left as it was found."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedtalk.errors import ConfigurationError, FedTalkError

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",  # this engine says it in one line
    "RAY_prestart_worker_first_driver": "0",  # actors with an environment of their own couldn't use these processes
    # Of a Ray that is started here: a machine that is busy is not a node that is lost.
    "RAY_health_check_timeout_ms": "60000",
    "RAY_agent_register_timeout_ms": "300000",
}
"""Of Ray; a user's own come first. They count where they are set before Ray is imported."""

log = logging.getLogger(__name__)

WANTED = "RAY_ADDRESS"


class WorkerError(FedTalkError):
    """A worker ended before its time, or there is none."""


@dataclass(frozen=True)
class Session:
    """A connection to Ray."""

    started: bool
    """Whether this process has started it, and so ends it."""
    connected: bool
    """Whether this process has connected to it, and so disconnects."""

    def close(self) -> None:
        """Leave Ray as it was found."""
        if self.connected:
            import ray

            ray.shutdown()


def require_ray() -> None:
    """
    Raises:
        ConfigurationError: Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigurationError(
            "trainer.workers, trainer.placements: more than one process needs Ray, which is not installed: expected "
            'pip install "fedtalk[ray]", or workers: 1 and placements of kind single without gpus and resources'
        )


def check_alone() -> None:
    """
    Raises:
        ConfigurationError: torchrun has started this process and others like it.
    """
    count = os.environ.get("WORLD_SIZE", "1")
    if "TORCHELASTIC_RUN_ID" in os.environ and count != "1":
        raise ConfigurationError(
            f"a run is one process, which has others started by Ray: expected fedtalk to be started once, got {count} processes "
            "of torchrun; start it without, with trainer.workers, on several machines as docs/deploy.md, Ray, says"
        )


def open_session(needs: Sequence[Mapping[str, float]]) -> Session:
    """Use the Ray that this process has, or join the one that RAY_ADDRESS names, or start one on this machine.

    Args:
        needs: what each process will ask for, in Ray's names; a Ray that is started here has room for all of it but GPUs,
            whose number is the machine's.

    Raises:
        ConfigurationError: RAY_ADDRESS can't be used, or there are too few GPUs.
        WorkerError: Ray doesn't start.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return Session(started=False, connected=False)
    address = os.environ.get(WANTED, "")
    if "://" in address:
        raise ConfigurationError(
            f"{WANTED}: expected host:port of a cluster that this machine is part of, or auto, got {address}; run the command "
            "on a node, or send it by `ray job submit`"
        )
    room: dict[str, Any] = {}
    if not address:
        total = {name: sum(need.get(name, 0.0) for need in needs) for name in {key for need in needs for key in need}}
        room = {
            "num_cpus": max(1, math.ceil(total.pop("CPU", 0.0))),
            "resources": {name: math.ceil(amount) for name, amount in total.items() if name != "GPU"},
        }
    _start(address, room)
    session = Session(started=not address, connected=True)
    if session.started:
        wanted, found = sum(need.get("GPU", 0.0) for need in needs), ray.cluster_resources().get("GPU", 0.0)
        if wanted > found + 1e-6:
            session.close()
            raise ConfigurationError(
                f"trainer.placements: all workers together ask for {wanted:g} GPUs: expected at most the {found:g} of this "
                "machine; lower trainer.workers or placement.gpus"
            )
    return session


def _start(address: str, room: dict[str, Any]) -> None:
    """Connect to the cluster at ``address``, or start a Ray on this machine; twice, since Ray gives its own processes half a
    minute to start, which a busy machine may exceed.

    Raises:
        WorkerError: Ray doesn't start.
    """
    import ray

    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    for last in (False, True):
        try:
            ray.init(
                address=address or "local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **room,
            )
            return
        except Exception as error:  # of many kinds, Exception itself where time has run out
            ray.shutdown()
            told = str(error).strip().splitlines()
            where = f"the cluster at {WANTED}={address} can't be joined" if address else "a local Ray can't be started"
            message = f"{where}: {told[0] if told else type(error).__name__}"
            if last:
                raise WorkerError(f"{message} See docs/deploy.md, Placements and One cluster") from error
            log.warning("%s Trying once more", message)
        finally:
            if main and handler is not None:
                signal.signal(signal.SIGTERM, handler)  # Ray would end this process between two writes


def cluster_room() -> dict[str, float]:
    """What all nodes have together, in Ray's names."""
    import ray

    return {name: amount for name, amount in ray.cluster_resources().items() if not name.startswith("node:")}
