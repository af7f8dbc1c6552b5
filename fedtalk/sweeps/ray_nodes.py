"""A sweep's runs on the nodes of a Ray cluster (``fedtalk[ray]``); each run is a task that starts a process there."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Sequence

from fedtalk.errors import ConfigurationError
from fedtalk.sweeps.environment import run_environment


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names.

    Raises:
        ConfigurationError: ray is not installed, RAY_ADDRESS is not set, or nobody answers there.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigurationError(
            "sweep on Ray: the package ray is missing; install fedtalk[ray], or leave out --ray to use this machine"
        ) from error
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        raise ConfigurationError(
            "sweep on Ray: expected RAY_ADDRESS to name the cluster's head, such as 10.0.0.1:6379, got nothing; on this machine "
            "alone leave out --ray, several runs at a time need no cluster"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigurationError(f"sweep on Ray: nobody answers at RAY_ADDRESS={address} ({error})") from error


def gpus_of_a_run() -> int:
    """1 where the cluster has GPUs, which each run then has one of to itself; else 0."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0) >= 1)


def usable_runs(threads: int) -> int:
    """How many runs of ``threads`` CPU threads the cluster takes at the same time; one a GPU where it has any."""
    import ray

    there = ray.cluster_resources()
    by_cores = int(there.get("CPU", 1)) // threads
    return max(1, min(by_cores, int(there["GPU"])) if gpus_of_a_run() else by_cores)


def run_on_a_node(command: Sequence[str], log: str, threads: int, gpus: int, stopping: threading.Event) -> int:
    """Run a command on whichever node has ``threads`` processors and ``gpus`` GPUs free; its exit status.

    Args:
        command: absolute, and valid on every node (same environment, shared folder).
        log: file that its output is appended to.
        threads: CPU threads.
        gpus: GPUs; a run without one sees none, whatever its node has.
        stopping: once set, the run is asked to stop.
    """
    import ray

    task = ray.remote(_run).options(num_cpus=threads, num_gpus=gpus, max_retries=0).remote(list(command), log, threads)
    while True:
        done, _ = ray.wait([task], timeout=1.0)
        if done:
            try:
                return int(ray.get(task))
            except ray.exceptions.RayError as error:
                with open(log, "a", encoding="utf-8") as stream:
                    stream.write(f"the node was lost or the run was ended: {str(error).splitlines()[0]}\n")
                return 1
        if stopping.is_set():
            ray.cancel(task)


def _run(command: list[str], log: str, threads: int) -> int:
    """On the node. A cancelled task gets a KeyboardInterrupt here, and its process is asked to stop."""
    with open(log, "a", encoding="utf-8") as stream:
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=stream,
            env=run_environment(threads),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
