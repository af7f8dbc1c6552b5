#!/usr/bin/env python
"""Is training clients in one batch the same as training them apart?

    python scripts/check_together.py --json

Shipped backbone, the adapter of configs/isfa.yaml, prepared SynthTalk clips. For every seed and size of a batch, four clients
train apart (`train_locally`) and in one batch (`train_together`); the difference of a client's two updates is given in units of
their norm. In 64-bit numbers it says whether both do the same. In 32-bit numbers there is a control: training apart with one
thread against training apart with two, which adds up the same numbers in another order. AdamW divides a gradient by its own
size, so a coordinate whose gradient is rounding error moves as far as any other, either way: a single client may well differ by
more than the median one, and does in the control too.

Exits with 1 if a client differs by more than 1e-4 in 64-bit numbers, or the median client does in 32-bit ones and by more than
twice the control's median.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from exact_talker import ExactTalker
from lightning.fabric import Fabric
from torch import Tensor

from fedtalk.data.source import PreparedCache
from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.talker.adapters import Adapter
from fedtalk.talker.module import Talker
from fedtalk.training.local import LocalTraining, train_locally
from fedtalk.training.module import Prepared, copy_state, load_state
from fedtalk.training.together import train_together

CLIENTS = 4
WANTED = 1e-4


def apart(
    talker: Talker, clips: Mapping[str, list[Prepared]], local: LocalTraining, seed: int, threads: int
) -> dict[str, dict[str, Tensor]]:
    """Where each client's training by itself ends; the talker is left as it was."""
    parameters = talker.exchanged_parameters()
    start, ends = copy_state(parameters), {}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for client, own in clips.items():
        load_state(parameters, start)
        train_locally(Fabric(accelerator="cpu", devices=1), talker, own, local, seed, client, 0, 1)
        ends[client] = copy_state(parameters)
    torch.set_num_threads(before)
    load_state(parameters, start)
    return ends


def differences(
    one: Mapping[str, Mapping[str, Tensor]], other: Mapping[str, Mapping[str, Tensor]], start: Mapping[str, Tensor]
) -> list[float]:
    """Of each client's two updates, in units of the first one's norm."""

    def flat(state: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([state[name].double().flatten() for name in start])

    return [
        float((flat(one[client]) - flat(other[client])).norm() / (flat(one[client]) - flat(start)).norm())
        for client in one
    ]


def compare(
    backbone: str, cache: str, batches: Sequence[int], seeds: int, local_steps: int, threads: tuple[int, int] = (2, 1)
) -> dict[str, dict[str, float]]:
    """The differences of all clients, seeds and sizes of a batch, summed up.

    Args:
        threads: of everything, and of the control.
    """
    found: dict[str, list[float]] = {"exact": [], "together": [], "control": []}
    for kind in (Talker, ExactTalker):
        talker = kind(backbone, adapter=Adapter(rank=8, alpha=8.0)).eval()
        size = talker.backbone.architecture.size
        data = SynthTalkData(speakers=CLIENTS, clips=1, held_out=1, frames=24, size=size)
        prepared = PreparedCache(Path(cache))
        clips = {client: prepared.get(talker, data.training_clips(client)) for client in data.clients}
        if kind is ExactTalker:
            talker.double()
        start, fabric = copy_state(talker.exchanged_parameters()), Fabric(accelerator="cpu", devices=1)
        for batch_size in batches:
            local = LocalTraining(steps=local_steps, batch_size=batch_size)
            for seed in range(seeds):
                alone = apart(talker, clips, local, seed, threads[0])
                together = train_together(fabric, talker, clips, local, seed, 0, 1)
                found["exact" if kind is ExactTalker else "together"] += differences(alone, together, start)
                if kind is Talker:
                    found["control"] += differences(alone, apart(talker, clips, local, seed, threads[1]), start)
    return {
        name: {
            "clients": len(values),
            "median": float(f"{statistics.median(values):.2g}"),
            "worst": float(f"{max(values):.2g}"),
            "above_1e-4": sum(value > WANTED for value in values),
        }
        for name, values in found.items()
    }


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="windows of a client's step")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="local steps")
    parser.add_argument("--backbone", default="shipped")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory(prefix="fedtalk-together-") as cache:
        found = compare(options.backbone, cache, options.batches, options.seeds, options.steps)
    if options.json:
        print(json.dumps(found))
    else:
        names = {
            "exact": "in one batch, 64 bits",
            "together": "in one batch, 32 bits",
            "control": "one thread against two, 32 bits",
        }
        for name, one in found.items():
            print(
                f"{names[name]:<32} median {one['median']:.1e}, worst {one['worst']:.1e}, "
                f"{one['above_1e-4']} of {one['clients']} clients above 1e-4"
            )
    rounding = max(WANTED, 2 * found["control"]["median"])
    sys.exit(found["exact"]["worst"] > WANTED or found["together"]["median"] > rounding)


if __name__ == "__main__":
    main()
