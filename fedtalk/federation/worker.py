"""A worker process: takes clients, does their local work and hands it back, until the main process is done or gone."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import TorchElasticEnvironment
from lightning.fabric.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, nn

from fedtalk.federation.client import ClientHalf
from fedtalk.federation.client_states import ClientStates
from fedtalk.federation.engines.in_process import Failure
from fedtalk.federation.federation import Federation
from fedtalk.federation.local_work import LocalWork
from fedtalk.federation.module import FederatedModule
from fedtalk.federation.placement import Placement


class GivenUp(Exception):
    """The main process doesn't want the task's results any more."""


@dataclass(frozen=True)
class Seat:
    """Which process of a fit this is."""

    placement: Placement
    """What it shares with the processes that take clients together with it."""
    rank: int
    """Among these."""
    port: int
    """Where these meet, on this machine."""
    device: str
    """``cpu`` or ``cuda:0`` and so on."""
    threads: int


def arrays(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """As numpy arrays, which are pickled a hundred times faster than tensors; `tensors` is the way back."""
    return {name: value.numpy() for name, value in state.items()}


def tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in state.items()}


def send(connection: Connection, message: object) -> None:
    """Pickled plainly: torch's own pickling between processes would pass file descriptors, one a tensor."""
    connection.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))


def receive(connection: Connection) -> Any:
    """
    Raises:
        EOFError: the other side is gone.
    """
    return pickle.loads(connection.recv_bytes())


def main(connection: Connection, lifeline: Connection, setup: Path, seat: Seat) -> None:
    """What a worker process runs.

    From it comes ``("broken", Failure)``, or what `serve` sends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the main one decides
    _end_with_parent(lifeline)
    for chatty in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    torch.set_num_threads(seat.threads)
    try:
        clients = _client_half(setup, seat)
    except Exception as error:  # told by the main process, in whose log it belongs
        with contextlib.suppress(OSError):  # the fit is over
            send(connection, ("broken", Failure.of(error)))
        return
    try:
        serve(connection, clients, seat.rank)
    finally:
        del clients  # and with it DDP's wrapper, which must not outlive its process group
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            gc.collect()
            torch.distributed.destroy_process_group()


def serve(connection: Connection, clients: ClientHalf, rank: int, ready: object = None) -> None:
    """Do the local work that is asked for, until the other side is done or gone.

    Messages to here: ``(LocalWork, [client, ...], state, optimizers)``, and None to give that task up. From here: ``("ready",
    ready)`` once; then, for each task, ``("started", clients)``, ``("step", (client, step, losses))`` and at the end ``("done",
    [(client, LocalResult or Failure), ...])``.

    Args:
        connection: to whoever hands out tasks.
        clients: what does the work.
        rank: among those that take clients together; the first one tells of steps and results.
        ready: what is told at the start.
    """
    try:
        send(connection, ("ready", ready))
        while True:
            task = receive(connection)
            if task is None:  # a task was given up that had just been done
                continue
            work, names, state, optimizers = task
            if optimizers is not None:
                clients.states = SentStates(optimizers)
            done = list(_work(clients, connection, rank, names, work, tensors(state)))
            send(connection, ("done", done if rank == 0 else [pair for pair in done if isinstance(pair[1], Failure)]))
    except (EOFError, ConnectionError, TimeoutError):
        pass  # the fit is over


class SentStates(ClientStates):
    """Clients' optimizer states as they came with a task, for who can't read the run's folder."""

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


def _work(
    clients: ClientHalf, connection: Connection, rank: int, names: list[str], work: LocalWork, start: dict
) -> Iterator[tuple[str, object]]:
    """Each client with a `LocalResult` whose state is in arrays, or a `Failure`."""

    def on_step(name: str, step: int, losses: dict[str, float]) -> None:
        if rank == 0:
            send(connection, ("step", (name, step, losses)))
        if connection.poll():  # nothing else comes while a task is under way
            raise GivenUp

    if rank == 0:
        send(connection, ("started", " and ".join(names)))
    for name, result in clients.work_together(names, work, start, on_step):
        if isinstance(result, BrokenPipeError):
            raise result
        # As in one process, an error costs this result only.
        told = Failure.of(result) if isinstance(result, Exception) else replace(result, state=arrays(result.state))
        del result  # the next client needs the memory that an error's traceback keeps
        yield name, told


def _client_half(path: Path, seat: Seat) -> ClientHalf:
    # Mapped, not read: the frozen backbone is in memory once for all workers of a machine. Written by this very run.
    federation: Federation = torch.load(path, map_location="cpu", mmap=True, weights_only=False)
    fabric, wrapped = _launch(federation, seat)
    federation.module.eval()
    return ClientHalf(federation, fabric, wrapped)


def _launch(federation: Federation, seat: Seat) -> tuple[Fabric, Any]:
    """Fabric of this process, and what it made of the module where several processes take a client together."""
    placement, device = seat.placement, torch.device(seat.device)
    precision: Any = placement.precision or federation.precision
    if placement.kind == "single":
        devices: Any = [device.index or 0] if device.type == "cuda" else 1
        fabric = Fabric(accelerator=device.type, devices=devices, precision=precision)
        federation.module.to(fabric.device)
        return fabric, None
    # As torchrun would, so that Fabric starts no processes of its own.
    os.environ.update({
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(seat.port), "WORLD_SIZE": str(placement.processes),
        "RANK": str(seat.rank), "LOCAL_RANK": str(seat.rank), "LOCAL_WORLD_SIZE": str(placement.processes),
        "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "fedtalk",
    })  # fmt: skip
    strategy: Any
    if placement.kind == "ddp":
        # An adapter's factor that a batch doesn't reach is no error, as it is none in one process.
        strategy = DDPStrategy(find_unused_parameters=True, forward_sync_buffers=False)
    else:
        strategy = ModelParallelStrategy(
            lambda module, mesh: shard(module, mesh["data_parallel"], placement.cpu_offload),
            data_parallel_size=placement.processes,
            tensor_parallel_size=1,
            # Norms of what is kept in the machine's memory are summed there.
            process_group_backend="cpu:gloo,cuda:nccl" if placement.cpu_offload else None,
        )
    fabric = Fabric(
        accelerator=device.type, devices=placement.processes, strategy=strategy, precision=precision,
        plugins=TorchElasticEnvironment(),
    )  # fmt: skip
    fabric.launch()
    # What is sharded moves with its shards (`shard`).
    return fabric, fabric.setup_module(federation.module, move_to_device=placement.kind == "ddp")


def shard(module: nn.Module, mesh: Any, cpu_offload: bool) -> nn.Module:
    """Shard what the module says can be (FSDP2); all else stays whole, on the mesh's devices.

    Args:
        module: a `FederatedModule`.
        mesh: one axis, the processes.
        cpu_offload: keep the shards in the machine's memory between uses.
    """
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    assert isinstance(module, FederatedModule)
    shards = module.shards()
    policy = CPUOffloadPolicy() if cpu_offload else OffloadPolicy()
    if mesh.device_type != "cpu":
        sharded = {id(value) for value in shards[-1].parameters()} if cpu_offload else set()
        for value in [*module.parameters(), *module.buffers()]:
            if id(value) not in sharded:
                value.data = value.data.to(mesh.device_type)
    for part in shards:
        fully_shard(part, mesh=mesh, offload_policy=policy)
    return module


def _end_with_parent(lifeline: Connection) -> None:
    """No worker outlives its fit, however that ends: the kernel closes a killed process's end of the lifeline."""
    if sys.platform == "linux":  # also where this process hangs without letting its threads run
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)

    def wait() -> None:
        lifeline.poll(None)
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="lifeline").start()
