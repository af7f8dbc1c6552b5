"""A federation small enough to be run hundreds of times: a random backbone at 32 px, two SynthTalk clients."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from fedtalk.talker.backbone import Architecture, Backbone, save_codec
from fedtalk.talker.codec import Codec, tiny_codec


def write_backbone(folder: Path) -> None:
    """A randomly initialised backbone; it learns nothing useful and takes every path that a trained one takes."""
    torch.manual_seed(0)
    save_codec(Codec(tiny_codec(width=8), pack=2), folder / "codec")
    architecture = Architecture(size=32, codec=str(folder / "codec"), pack=2, channels=[32], width=32, heads=2)
    Backbone.build(architecture).save(folder)


def write_config(
    path: Path, backbone: Path, rounds: int, clients: int = 2, steps: int = 1, batch_size: int = 2
) -> None:
    """A config of `fedtalk fit`: ISFA, monitors, personal adapters; run folder and cache are named on the command line."""
    config = {
        "model": {
            "class_path": "fedtalk.talker.module.Talker",
            "init_args": {"backbone": str(backbone), "adapter": {"rank": 2, "alpha": 4.0}, "window": 4, "stride": 4,
                          "sampling_steps": 1},
        },
        "data": {
            "class_path": "fedtalk.data.synthtalk_data.SynthTalkData",
            "init_args": {"speakers": clients, "clips": 1, "held_out": 1, "frames": 12, "size": 32},
        },
        "trainer": {
            "rounds": rounds, "validate_every": 0, "accelerator": "cpu", "threads": 1,
            "local": {"steps": steps, "batch_size": batch_size},
            "cohort": {"class_path": "fedtalk.federation.cohort.PoissonCohort", "init_args": {"rate": 0.8}},
            "aggregation": {"class_path": "ISFA", "init_args": {"gamma": 1.0}}, "personal": {"steps": 1},
        },
    }  # fmt: skip
    path.write_text(yaml.safe_dump(config))
