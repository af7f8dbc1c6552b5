"""Fabric inside a worker: alone, or together with others that take a client with it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.fabric.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn

from fedtalk.training.module import FederatedModule
from fedtalk.training.placement import Placement


@dataclass(frozen=True)
class WorkerSpec:
    """Which process of a fit a worker is."""

    kind: Placement
    """What it shares with those that take clients together with it."""
    rank: int
    """Among these."""
    device: str
    """``cpu`` or ``cuda``: the one that Ray shows it."""
    threads: int


def launch(spec: WorkerSpec, meeting: tuple[str, int], module: FederatedModule, precision: str) -> tuple[Fabric, Any]:
    """Fabric of this process, and what it made of the module where several processes take a client together.

    Args:
        spec: of this process.
        meeting: where processes that take a client together find each other: address and port of the first one.
        module: moved to the device, or sharded.
        precision: of the run, where the placement has none.
    """
    kind = spec.kind
    chosen: Any = kind.precision or precision
    if kind.kind == "single":
        fabric = Fabric(accelerator=spec.device, devices=1, precision=chosen, plugins=LightningEnvironment())
        module.to(fabric.device)
        return fabric, None
    # As torchrun would, on as many nodes as there are processes, so that Fabric starts none of its own.
    os.environ.update({
        "MASTER_ADDR": meeting[0], "MASTER_PORT": str(meeting[1]), "WORLD_SIZE": str(kind.processes),
        "RANK": str(spec.rank), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": str(spec.rank),
        "TORCHELASTIC_RUN_ID": "fedtalk",
    })  # fmt: skip
    strategy: Any
    if kind.kind == "ddp":
        # An adapter's factor that a batch doesn't reach is no error, as it is none in one process. All start from one setup,
        # whose frozen part can't be written to.
        strategy = DDPStrategy(find_unused_parameters=True, forward_sync_buffers=False, init_sync=False)
    else:
        strategy = ModelParallelStrategy(
            lambda whole, mesh: shard(whole, mesh["data_parallel"], kind.cpu_offload),
            data_parallel_size=kind.processes,
            tensor_parallel_size=1,
            # Norms of what is kept in the machine's memory are summed there.
            process_group_backend="cpu:gloo,cuda:nccl" if kind.cpu_offload else None,
        )
    fabric = Fabric(
        accelerator=spec.device, devices=1, num_nodes=kind.processes, strategy=strategy, precision=chosen,
        plugins=TorchElasticEnvironment(),
    )  # fmt: skip
    fabric.launch()
    # What is sharded moves with its shards (`shard`).
    return fabric, fabric.setup_module(module, move_to_device=kind.kind == "ddp")


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
