"""Runs of a sweep as processes of their own: several at once here, or on the nodes of a Ray cluster."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from fedtalk.errors import ArtifactError, ConfigurationError, OutputError
from fedtalk.interruption import StopSignals
from fedtalk.storage import write_json
from fedtalk.sweeps.environment import run_environment
from fedtalk.sweeps.plan import PlannedRun
from fedtalk.sweeps.processes import SINGLE, RunProcess, prepare, start

log = logging.getLogger("fedtalk")

RESULT = "sweep_run.json"
"""In the folder of a run that is finished: what it is, what it measured, how long it took."""
LOG = "log.txt"
GRACE_SECONDS = 30.0
"""Time that a run gets to stop by itself (it ends its local step and leaves whole files)."""


@dataclass(frozen=True)
class Finished:
    """A run that was fitted and measured."""

    run: PlannedRun
    metrics: dict[str, float]
    """Measures by ``row.metric``, such as ``personal.psnr_mouth``; ``portrait.row.metric`` for the portrait task."""
    seconds: float
    """Of this sweep; what an interrupted one spent before is not in it."""
    folder: Path


@dataclass(frozen=True)
class Failed:
    """A run that ended with an error; the sweep goes on without it."""

    run: PlannedRun
    reason: str
    folder: Path


@dataclass
class SweepOutcome:
    """What a sweep came to."""

    finished: list[Finished] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    kept: int = 0
    """Finished runs that an earlier sweep had done already."""


def flatten(result: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of ``metrics.json`` by ``row.metric``; what is null there isn't among them.

    >>> flatten({"trained": {"psnr": 30.1}, "portrait": {"trained": {"psnr": 22.0}}, "about": {"clips": 8}})
    {'trained.psnr': 30.1, 'portrait.trained.psnr': 22.0}
    """
    flat: dict[str, float] = {}
    for row, values in result.items():
        if row in ("about", "comparisons", "clips") or not isinstance(values, dict):
            continue
        if row == "portrait":
            flat |= {f"portrait.{name}": value for name, value in flatten(values).items()}
        else:
            flat |= {f"{row}.{name}": float(value) for name, value in values.items() if value is not None}
    return flat


class Sweep:
    """Executes planned runs; a folder that holds the result of a run's key is taken as it is."""

    def __init__(
        self,
        folder: Path,
        configs: Sequence[str],
        jobs: int,
        threads: int = 1,
        gpus: Sequence[str] = (),
        on_ray: bool = False,
    ) -> None:
        """
        Args:
            folder: of the sweep; runs are in ``runs/`` below it.
            configs: config files that every run starts from.
            jobs: runs at the same time.
            threads: CPU threads of each.
            gpus: device numbers; each run gets one of them to itself. None: the CPU alone.
            on_ray: run on the nodes of the Ray cluster that RAY_ADDRESS names (all of them must see ``folder``).

        Raises:
            ConfigurationError: ``jobs`` or ``threads`` below 1, or more runs at once than GPUs.
        """
        if jobs < 1 or threads < 1:
            raise ConfigurationError(f"sweep: expected --jobs and --threads of at least 1, got {jobs} and {threads}")
        if gpus and jobs > len(gpus):
            raise ConfigurationError(f"sweep.jobs: expected at most one run a GPU, {len(gpus)}, got {jobs}")
        self.folder, self.configs, self.jobs, self.threads = folder, list(configs), jobs, threads
        self.on_ray = on_ray
        self._gpus: SimpleQueue[str] = SimpleQueue()
        for gpu in gpus:
            self._gpus.put(gpu)
        self._has_gpus = bool(gpus)
        self._stopping = threading.Event()
        self._processes: set[RunProcess] = set()
        self._lock = threading.Lock()

    def folder_of(self, run: PlannedRun) -> Path:
        return self.folder / "runs" / run.folder_name

    def result_of(self, run: PlannedRun) -> Finished | None:
        """What an earlier sweep made of this very run, if it finished it."""
        folder = self.folder_of(run)
        try:
            known = json.loads((folder / RESULT).read_text(encoding="utf-8"))
            return Finished(run, known["metrics"], known["seconds"], folder) if known["key"] == run.key else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{folder / RESULT}: can't be read ({error!r}); remove the folder to run it again"
            ) from error

    def execute(self, runs: Sequence[PlannedRun], on_change: Callable[[SweepOutcome, list[str]], None]) -> SweepOutcome:
        """Run what is missing.

        Args:
            runs: of the plan.
            on_change: called with the outcome so far and the names of the runs under way, whenever either changes and about
                once a second.

        Raises:
            Interrupted: SIGTERM or SIGINT; runs under way were asked to stop, and go on where they stopped with the next sweep.
        """
        outcome = SweepOutcome()
        missing = []
        for run in runs:
            known = self.result_of(run)
            if known is None:
                missing.append(run)
            else:
                outcome.finished.append(known)
                outcome.kept += 1
        if missing and not self._has_gpus and not self.on_ray:  # a fork may not share what CUDA has begun
            prepare(run_environment(self.threads))
        running: dict[Future[Finished | Failed], str] = {}
        started: list[str] = []
        with StopSignals() as signals, ThreadPoolExecutor(max(1, self.jobs)) as pool:
            try:
                for run in missing:
                    running[pool.submit(self._one, run, started)] = run.name
                on_change(outcome, list(started))
                while running:
                    done, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                    signals.check()
                    for future in done:
                        name = running.pop(future)
                        result = future.result()
                        if name in started:
                            started.remove(name)
                        (outcome.finished if isinstance(result, Finished) else outcome.failed).append(result)  # type: ignore[arg-type]
                    on_change(outcome, list(started))
            except BaseException:
                self._stop(running)
                raise
        return outcome

    def _one(self, run: PlannedRun, started: list[str]) -> Finished | Failed:
        folder = self.folder_of(run)
        if self._stopping.is_set():
            return Failed(run, "not started", folder)
        started.append(run.name)
        gpu = self._gpus.get() if self._has_gpus else None
        begun = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            command = self._command(run, folder)
            code = self._on_ray(command, folder) if self.on_ray else self._here(command, folder, gpu)
            if code:
                return Failed(run, _why(code, folder / LOG), folder)
            metrics = flatten(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
            seconds = time.monotonic() - begun
            write_json(
                folder / RESULT,
                {"key": run.key, "variation": run.variation.name, "arguments": run.variation.arguments, "seed": run.seed,
                 "seconds": round(seconds, 1), "metrics": metrics},
            )  # fmt: skip
            return Finished(run, metrics, seconds, folder)
        except (OSError, OutputError) as error:
            return Failed(run, f"its folder can't be used: {error}", folder)
        except Exception as error:  # a run's trouble is its own
            log.debug("run %s", run.name, exc_info=True)
            return Failed(run, f"what it left can't be read: {error!r}", folder)
        finally:
            if gpu is not None:
                self._gpus.put(gpu)

    def _command(self, run: PlannedRun, folder: Path) -> list[str]:
        configs = [argument for config in self.configs for argument in ("--config", config)]
        return [
            sys.executable, "-m", SINGLE, *configs, *run.variation.arguments, f"--seed_everything={run.seed}",
            f"--trainer.default_root_dir={folder}", f"--trainer.threads={self.threads}", "--ckpt_path=last",
        ]  # fmt: skip

    def _here(self, command: Sequence[str], folder: Path, gpu: str | None) -> int:
        environment = run_environment(self.threads) | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
        process = start(command, folder / LOG, environment, forked=gpu is None)
        with self._lock:
            self._processes.add(process)
        if self._stopping.is_set():
            process.terminate()
        try:
            return process.wait()
        finally:
            with self._lock:
                self._processes.discard(process)

    def _on_ray(self, command: Sequence[str], folder: Path) -> int:
        from fedtalk.sweeps.ray_nodes import gpus_of_a_run, run_on_a_node

        return run_on_a_node(list(command), str(folder / LOG), self.threads, gpus_of_a_run(), self._stopping)

    def _stop(self, running: Mapping[Future, str]) -> None:
        """Ask all runs to stop, and end those that don't."""
        self._stopping.set()
        for future in running:
            future.cancel()
        for end in (False, True):
            with self._lock:
                processes = list(self._processes)
            for process in processes:
                process.kill() if end else process.terminate()
            deadline = time.monotonic() + GRACE_SECONDS
            while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
                time.sleep(0.1)


def _why(code: int, path: Path) -> str:
    """What a run says about its end, or the signal that ended it before it could say anything."""
    said = last_line(path)
    if code >= 0:
        return said or f"ended with {code}"
    name = signal.Signals(-code).name
    memory = ", as the system does where memory runs out" if name == "SIGKILL" else ""
    return f"killed by {name}{memory}" + (f"; its last line: {said}" if said else "")


def last_line(path: Path) -> str:
    """The last line with something in it of a log; empty where there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
