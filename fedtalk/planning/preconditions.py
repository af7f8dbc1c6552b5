"""What a trainer's settings must fulfil, with each other and with module and data: refused before any work."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from lightning.pytorch import Callback

from fedtalk.callbacks.aggregation import Aggregation
from fedtalk.errors import ConfigurationError, OutputError
from fedtalk.federation.federation import Federation
from fedtalk.privacy.settings import Privacy
from fedtalk.training.placement import Placements


def check_no_aggregation(callbacks: Iterable[Callback]) -> None:
    """
    Raises:
        ConfigurationError: a rule is listed where an overlay that lists another callback would drop it.
    """
    for callback in callbacks:
        if isinstance(callback, Aggregation):
            raise ConfigurationError(
                f"trainer.callbacks: expected monitors and the like, got {type(callback).__name__}, which is an aggregation; set "
                "it as trainer.aggregation"
            )


def check_in_the_clear(aggregation: Aggregation, privacy: Privacy | None) -> None:
    """
    Raises:
        ConfigurationError: a rule that looks at single updates, and privacy that keeps them from whoever sums.
    """
    if aggregation.sees_updates and privacy is not None:
        raise ConfigurationError(
            f"trainer.aggregation: {type(aggregation).__name__} looks at every client's update, which trainer.privacy keeps from "
            "the server: expected a rule that weighs, such as ISFA, FedAvg or Uniform; or leave privacy out, to compare"
        )


def check_folders(run_dir: Path, cache_dir: Path, afresh: bool) -> None:
    """Refuse to begin anew over a run's work, and folders that the rounds could not write.

    Args:
        run_dir: of the run.
        cache_dir: of prepared clips.
        afresh: whether the run begins anew and nobody has said that it may replace an older one.

    Raises:
        ConfigurationError: there is a run in the folder.
        OutputError: the cache can't be written.
    """
    if afresh and (run_dir / "checkpoints" / "last.ckpt").exists():
        raise ConfigurationError(
            f"{run_dir} holds a run already, and beginning anew would replace its checkpoint and adapters: expected --ckpt_path "
            "last to go on with it, another --trainer.default_root_dir, or --overwrite"
        )
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(tempfile.TemporaryFile(dir=cache_dir)):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write {cache_dir}: {error.strerror or error}. Expected a writable folder for prepared clips; choose another "
            "one with --trainer.cache_dir"
        ) from error


def check_ledger(run_dir: Path, privacy: Privacy | None) -> None:
    """
    Raises:
        ConfigurationError: the rounds in this folder spent epsilon, and those to come would have none.
    """
    ledger = run_dir / "checkpoints" / "ledger.json"
    if ledger.exists() and (privacy is None or not privacy.noised):
        raise ConfigurationError(
            f"{ledger}: the rounds in this folder were differentially private, and this run would not be: expected the privacy "
            "settings that are saved with the run; choose another trainer.default_root_dir, or say --trainer.allow_unprivate true"
        )


def check_enough(enough: float, privacy: Privacy | None) -> None:
    """
    Raises:
        ConfigurationError: not a share, or one that privacy forbids.
    """
    if not 0 < enough <= 1:
        raise ConfigurationError(f"trainer.enough: expected a share of the cohort above 0, at most 1, got {enough}")
    if privacy is None:
        return
    if enough < 1 and privacy.noised:
        raise ConfigurationError(
            f"trainer.enough: with differential privacy expected 1, got {enough}: if the first to arrive close a round, "
            "one client more or less also changes who else is in the sum, which is not accounted for. Use "
            "trainer.local.deadline_seconds, which looks at one client at a time."
        )
    tolerated = privacy.assumptions.dropout_fraction
    if enough < 1 - tolerated:
        raise ConfigurationError(
            f"trainer.enough: secure aggregation opens no sum once more than privacy.assumptions.dropout_fraction = "
            f"{tolerated:g} of a cohort is missing: expected at least {1 - tolerated:g}, got {enough:g}"
        )


def check_apart(privacy: Privacy | None, placements: Placements) -> None:
    """Refuse clients in one batch where one client more or less may change its own vector only.

    In a batch they share steps, a deadline and memory, so one that is slow or too large takes the others out of the sum; and
    the others' vectors come out in other last bits beside it than without it, each of which may round to another element of
    the ring. Either is more than the one vector that the noise is sized for.

    Args:
        privacy: of the run.
        placements: of its clients.

    Raises:
        ConfigurationError: with noise, a placement has clients train together.
    """
    for key, placed in placements:
        if privacy is not None and privacy.noised and placed.together > 1:
            raise ConfigurationError(
                f"{key}: clients that train in one batch share its time, its memory and the rounding of its sums, so one client "
                "more or less changes more than one vector, which is not accounted for: expected together: 1 with differential "
                f"privacy, got {placed.together}. Use trainer.workers to train several at once"
            )


def check_kept(federation: Federation, beyond: bool) -> None:
    """
    Args:
        federation: of the run.
        beyond: whether clients train in other processes too.

    Raises:
        ConfigurationError: clients keep parameters where these would have to travel, or would lie where privacy forbids it.
    """
    if not federation.module.kept_parameters():
        return
    shared = "parameters that clients keep (model.adapter.shared of a talker)"
    if beyond or any(placed.together > 1 for _, placed in federation.placements):
        raise ConfigurationError(
            f"trainer.workers: {shared} stay in the process of the run: expected workers: 1 and clients one by one"
        )
    if federation.privacy is not None:
        raise ConfigurationError(
            f"trainer.privacy: {shared} lie in the run's folder between rounds, which is the server's in a simulation: expected "
            "no privacy, or model.adapter.shared: null"
        )


def check_controls(federation: Federation, beyond: bool) -> None:
    """
    Args:
        federation: of the run.
        beyond: whether clients train in other processes too.

    Raises:
        ConfigurationError: clients correct their steps by control variates, where these would be wrong or would have to travel.
    """
    if not federation.aggregation.controls:
        return
    rule = type(federation.aggregation).__name__
    if federation.privacy is not None:
        raise ConfigurationError(
            f"trainer.aggregation: {rule} sends clients' gradients beside their updates, many times as long as these, and keeps "
            "single clients' in the run's folder: expected no privacy, or another rule"
        )
    if beyond:
        raise ConfigurationError(
            f"trainer.workers: clients' control variates of {rule} stay in the process of the run: expected workers: 1"
        )
    for key, placed in federation.placements:
        if placed.optimizer != "sgd" or placed.kind != "single":
            raise ConfigurationError(
                f"{key}: control variates of {rule} are means of gradients, which hold for plain SGD steps in one process alone: "
                f"expected kind single and optimizer sgd, got {placed.kind} and {placed.optimizer}"
            )
    if federation.module.changes_form or federation.minimum_clients > 1:
        raise ConfigurationError(
            f"trainer.aggregation: {rule} keeps the server's control variate the mean of all clients' own: expected "
            "minimum_clients: 1 (a void round would move theirs and not the server's) and another adapter.aggregation than fedsvd"
        )


def check_placements(federation: Federation) -> None:
    """Refuse placements that can't be run; the module itself is asked for what only it knows.

    Raises:
        ConfigurationError: with the key that says so.
    """
    module, local = federation.module, federation.local
    check_rules(
        federation.placements, federation.data.clients, local.batch_size, local.keep_optimizer, federation.device
    )
    if local.keep_optimizer and module.changes_form:
        raise ConfigurationError(
            "trainer.local.keep_optimizer: clients train other factors in every round, for which the state of the round before "
            "is of no use: expected false with model.adapter.aggregation: fedsvd, got true"
        )
    check_apart(federation.privacy, federation.placements)
    for key, placed in federation.placements:
        if placed.together > 1 and not module.trains_together:
            raise ConfigurationError(
                f"{key}: {type(module).__name__} can't train clients in one batch: expected together: 1 (a talker needs an "
                f"adapter for it), got {placed.together}"
            )
        try:
            if placed.gradient_checkpointing:
                module.set_gradient_checkpointing(False)
            if placed.compile:
                module.set_compiled(False)
            if placed.kind == "fsdp":
                module.shards()
        except ConfigurationError as error:
            raise ConfigurationError(f"{key}: {error}") from error


def check_rules(
    placements: Placements, clients: Sequence[str], batch_size: int, keep_optimizer: bool, device: torch.device
) -> None:
    """Refuse what can't be run, before any work.

    Args:
        placements: of the clients.
        clients: all who are registered.
        batch_size: of a local step.
        keep_optimizer: `LocalTraining.keep_optimizer`.
        device: what a single process trains on.

    Raises:
        ConfigurationError: a pattern that fits nobody, a batch that can't be divided, devices that aren't there.
    """
    for pattern in placements.rules:
        if not any(fnmatchcase(client, pattern) for client in clients):
            raise ConfigurationError(
                f"trainer.placements: pattern {pattern!r} fits none of the {len(clients)} clients; expected a client's "
                f"name or a pattern such as {clients[0][:3] + '*'!r}"
            )
    for key, placed in placements:
        parts = placed.processes * placed.accumulate
        if batch_size % parts:
            raise ConfigurationError(
                f"{key}: {placed.processes} processes with {placed.accumulate} parts each must share a batch evenly: "
                f"expected trainer.local.batch_size to be a multiple of {parts}, got {batch_size}"
            )
        if placed.together > 1 and keep_optimizer:
            raise ConfigurationError(
                f"{key}: clients in one batch have one optimizer: expected trainer.local.keep_optimizer: false, or "
                f"together: 1, got together: {placed.together}"
            )
        if placed.kind == "fsdp" and keep_optimizer:
            raise ConfigurationError(
                f"{key}: fsdp shards the optimizer, which trainer.local.keep_optimizer would have to put together: "
                "expected keep_optimizer: false, or ddp"
            )
        if device.type == "cpu" and placed.compile:
            find_compiler(f"{key}.compile")
        if device.type == "cpu" and placed.cpu_offload:
            raise ConfigurationError(
                f"{key}: cpu_offload moves things from a GPU to the machine's memory, where all of it is already on a "
                "CPU: expected false, got true"
            )


def find_compiler(key: str) -> str:
    """The C++ compiler that torch.compile uses on a CPU.

    Raises:
        ConfigurationError: there is none.
    """
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    wanted = os.environ.get("CXX", usual)
    found = shutil.which(wanted)
    if found is None:
        raise ConfigurationError(
            f"{key}: on a CPU torch.compile needs a C++ compiler: expected {wanted} on the path, or another one named by the "
            "environment variable CXX, got neither; else use compile: false"
        )
    return found
