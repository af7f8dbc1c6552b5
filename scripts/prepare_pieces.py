"""Prepare a config's clips for training with several processes, so that `fedtalk fit` with the same config finds them prepared.

python scripts/prepare_pieces.py --config CONFIG [--config OVERLAY] [--people CLIENTS] [--codec FOLDER] --cache CACHE --jobs 12
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from paper_experiments import merged

from fedtalk.data.public_data import PublicData
from fedtalk.data.source import PreparedCache
from fedtalk.talker.backbone import SHIPPED, Architecture
from fedtalk.talker.module import Talker


def prepare(settings: dict[str, Any], cache: Path, first: int, jobs: int) -> None:
    """Every ``jobs``-th clip from ``first`` on."""
    torch.set_num_threads(1)
    model = settings["model"]["init_args"]
    shape = model.get("architecture")
    talker = Talker(model.get("backbone", SHIPPED), Architecture(**shape) if shape else None)
    data = PublicData(**settings["data"]["init_args"])
    for sources in (data.training_clips("public"), data.held_out_clips("public")):
        for source in sources[first::jobs]:
            PreparedCache(cache).get(talker, [source])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", action="append", type=Path, required=True)
    parser.add_argument("--people")
    parser.add_argument("--codec")
    parser.add_argument("--set", nargs="*", default=[], help="of the data: pieces=100 speakers=8")
    parser.add_argument("--cache", type=Path, required=True, help="trainer.cache_dir of the fit")
    parser.add_argument("--jobs", type=int, default=1)
    chosen = parser.parse_args()
    settings: dict[str, Any] = {}
    for config in chosen.config:
        settings = merged(settings, yaml.safe_load(config.read_text()))
    if chosen.people:
        settings["data"]["init_args"]["people"] = chosen.people
    if chosen.codec and "architecture" in settings["model"]["init_args"]:
        settings["model"]["init_args"]["architecture"]["codec"] = chosen.codec
    settings["data"]["init_args"].update((name, int(value)) for name, value in (one.split("=") for one in chosen.set))
    begun, context = time.monotonic(), multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=prepare, args=(settings, chosen.cache, first, chosen.jobs))
        for first in range(chosen.jobs)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(f"prepared in {time.monotonic() - begun:.0f} s")
    if any(worker.exitcode for worker in workers):
        raise SystemExit("prepare_pieces.py: a process failed, see above")


if __name__ == "__main__":
    main()
