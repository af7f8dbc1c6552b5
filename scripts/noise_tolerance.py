#!/usr/bin/env python
"""How much noise an adapter bears: the diffusion error with random vectors of growing length in place of what it learned.

    python scripts/noise_tolerance.py --json

Of the model of a config (configs/private.yaml), on held-out clips of SynthTalk people who are nobody's clients, at fixed noise
levels. Differential privacy adds noise of about multiplier x sqrt(2) x clipping bound x sqrt(d) / cohort a round, and it is the
noise summed over the rounds that must do no harm.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import yaml

from fedtalk.data.source import PreparedCache
from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.federation.vector import flatten, unflatten
from fedtalk.randomness import numpy_generator, torch_generator
from fedtalk.talker.adapters import Adapter
from fedtalk.talker.module import Talker
from fedtalk.training.module import copy_state, load_state


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/private.yaml"))
    parser.add_argument("--norms", type=float, nargs="+", default=[0, 4, 8, 16, 32])
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--draws", type=int, default=3, help="random vectors of each length")
    parser.add_argument("--cache_dir", default=".cache/fedtalk")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = yaml.safe_load(options.config.read_text())["model"]["init_args"]
    adapter = Adapter(**settings.pop("adapter"))
    talker = Talker(**settings, adapter=adapter).eval()
    people = SynthTalkData(group="private", speakers=options.people, clips=1, held_out=1, frames=24, first=5000)
    cache = PreparedCache(Path(options.cache_dir))
    held_out = {name: cache.get(talker, people.held_out_clips(name)) for name in people.clients}
    parameters = talker.exchanged_parameters()
    start = copy_state(parameters)
    dimension = len(flatten(start))
    errors: dict[str, float] = {}
    for norm in options.norms:
        found = []
        for draw in range(options.draws if norm else 1):
            vector = numpy_generator(0, "noise", norm, draw).standard_normal(dimension)
            load_state(parameters, unflatten(flatten(start) + norm * vector / np.linalg.norm(vector), start))
            found += [
                talker.held_out_metrics(clips, torch_generator(0, "noise", name))["diffusion"]
                for name, clips in held_out.items()
            ]
        errors[f"{norm:g}"] = round(float(np.mean(found)), 4)
    if options.json:
        print(json.dumps({"dimension": dimension, "diffusion_error_by_norm": errors}))
        return
    print(f"{dimension} coordinates")
    for norm, error in errors.items():
        print(f"{norm:>6}  {error:.4f}")


if __name__ == "__main__":
    main()
