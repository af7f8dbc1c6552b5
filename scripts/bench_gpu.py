"""What a GPU brings: frames a second of portraits, and milliseconds of a training step, against this machine's processor.

    python scripts/bench_gpu.py [--backbone shipped] [--seconds 8] [--json OUT.json]

Of a portrait the whole way from sound to frames counts, but for reading and writing files. A step trains an adapter of the
usual rank (batches of 4 and 32 windows of 8 frames), draws included. Every time is the median of three after one that does
not count.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric

from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.talker.adapters import Adapter
from fedtalk.talker.module import Talker
from fedtalk.training.local import LocalTraining, train_locally
from fedtalk.training.placement import Placement

STEPS = 10


def median(work: Callable[[], object]) -> float:
    """Seconds."""
    taken = []
    for _ in range(4):
        begun = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="shipped")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    speaker = Speaker.draw(0, "private", 0)
    clip = make_clip(speaker, 0, 25 * chosen.seconds, 128)
    sound, reference = torch.from_numpy(clip.audio), clip.reference(0)
    prepared = [Talker(chosen.backbone).prepare_clip(make_clip(speaker, 1, 40, 128))]
    found: dict[str, dict[str, float]] = {}
    for device, precision in (("cpu", "32-true"), ("cuda", "32-true"), ("cuda", "bf16-mixed")):
        if device == "cuda" and not torch.cuda.is_available():
            continue
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        talker = Talker(chosen.backbone, sampling_steps=1, stride=8).eval().to(device)
        half: Callable[[], AbstractContextManager] = (
            (lambda: torch.autocast("cuda", torch.bfloat16)) if precision != "32-true" else nullcontext
        )

        def portrait(talker: Talker = talker, half: Callable[[], AbstractContextManager] = half) -> None:
            with half():
                assert len(list(talker.portrait(sound, reference))) == len(clip)

        row = {"portrait_frames_per_s": len(clip) / median(portrait)}
        count = STEPS if device == "cuda" else 2
        for batch in (4, 32):
            own = Talker(chosen.backbone, adapter=Adapter())
            fabric = Fabric(accelerator=device, devices=1, precision=precision)
            own = fabric.setup_module(own, move_to_device=True).module  # type: ignore[assignment]

            def steps(own: Talker = own, fabric: Fabric = fabric, batch: int = batch, count: int = count) -> None:
                local = LocalTraining(steps=count, batch_size=batch)
                train_locally(fabric, own, prepared, local, 0, "anna", 0, 1, placement=Placement())

            row[f"step_of_{batch}_ms"] = 1000 * median(steps) / count
        if device == "cuda":
            row["peak_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        found[f"{device} {precision}"] = row
        print(f"{device} {precision}: " + ", ".join(f"{name} {value:.1f}" for name, value in row.items()), flush=True)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(json.dumps({"gpu": name, "threads": torch.get_num_threads(), **found}))
    if chosen.json:
        chosen.json.write_text(json.dumps({"gpu": name, **found}, indent=1))


if __name__ == "__main__":
    main()
