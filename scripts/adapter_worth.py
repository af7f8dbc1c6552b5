#!/usr/bin/env python
"""Is a federated adapter worth its rounds? Mouths of people who took part and of people who didn't, with it and without.

    python scripts/adapter_worth.py --learning_rate 3e-3 [--group community] [--lips heard] [--rounds 3] [--steps 8]

FedAvg with equal weights over private SynthTalk speakers on the shipped backbone, every client in every round, three clips of 24
frames each; no sealing, no cohort: nothing but rate, objective and data. After each measured round a held-out clip of every
person is dubbed; intervals are bootstrapped over people. --lips heard moves the puppets of training clips by what is heard
alone, as when a picture is made, in place of half of what is seen. What is prepared is kept in --work.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from safetensors.torch import load_file, save
from torch import Tensor

from fedtalk.data.clip import Clip
from fedtalk.data.lips import OPENEST
from fedtalk.data.synthtalk import GROUPS, Speaker, make_clip
from fedtalk.encoders.speech import heard_lips
from fedtalk.evaluation import metrics
from fedtalk.storage import atomic_path, write_json
from fedtalk.talker.adapters import Adapter
from fedtalk.talker.module import Talker
from fedtalk.talker.quality import mouth_probe
from fedtalk.training.local import LocalTraining, train_locally
from fedtalk.training.module import Prepared, copy_state, load_state

FRAMES, CLIPS, HELD_OUT, POPULATION = 24, 3, 9, 3
OTHERS = 100
"""Number of the first person who takes no part."""

Row = tuple[int, float, np.ndarray, np.ndarray]
"""A person, its mouth PSNR, the generated and the true opening."""


def clip_of(group: str, person: int, take: int) -> Clip:
    return make_clip(Speaker.draw(POPULATION, group, person), take, FRAMES, 128)


def prepared(talker: Talker, group: str, person: int, take: int, lips: str, work: Path) -> Prepared:
    path = work / f"{group}-{lips}-{person}-{take}.safetensors"
    if not path.exists():
        clip = clip_of(group, person, take)
        if lips == "heard":
            opening = heard_lips(torch.from_numpy(clip.audio))[:, 0].numpy() / OPENEST
            clip = replace(clip, openness=opening.astype(np.float32))
        made = {name: value.contiguous() for name, value in talker.prepare_clip(clip).items()}
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(made))
    return load_file(path)


def measured(talker: Talker, group: str, people: list[int]) -> list[Row]:
    rows = []
    for person in people:
        clip, reference = clip_of(group, person, HELD_OUT), clip_of(group, person, 0).reference(0)
        frames = np.stack([frame.numpy() for frame in talker.eval().dub(clip, reference)])
        assert clip.openness is not None
        opening = mouth_probe().measure(frames, clip.mouth, clip.eyes)
        rows.append((person, metrics.psnr_mouth(clip.frames, frames, clip.mouth, clip.eyes), opening, clip.openness))
    return rows


def compared(after: list[Row], before: list[Row]) -> dict[str, float]:
    """Differences with 95 % intervals by resampling people."""

    def difference(chosen: np.ndarray) -> tuple[float, float, float]:
        psnr = float(np.mean([after[i][1] - before[i][1] for i in chosen]))
        own = float(np.mean([metrics.mouth_corr(*after[i][2:]) - metrics.mouth_corr(*before[i][2:]) for i in chosen]))
        pooled = [metrics.pooled_mouth_corr([rows[i][2:] for i in chosen]) for rows in (after, before)]
        return psnr, own, pooled[0] - pooled[1]

    everybody, generator = np.arange(len(after)), np.random.default_rng(0)
    draws = np.array([difference(generator.choice(everybody, len(everybody))) for _ in range(2000)])
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    names = ("psnr_mouth", "mouth_corr", "mouth_corr_pooled")
    found = zip(names, difference(everybody), low, high, strict=True)
    return {
        f"{name}{end}": float(v) for name, mean, a, b in found for end, v in (("", mean), ("_low", a), ("_high", b))
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--learning_rate", type=float, default=3e-3)
    options.add_argument("--group", choices=GROUPS, default="private", help="whom the people are drawn from")
    options.add_argument("--mouth_emphasis", type=float, default=2.0)
    options.add_argument("--lips", choices=["seen", "heard"], default="seen")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, default=8)
    options.add_argument("--batch_size", type=int, default=2)
    options.add_argument("--people", type=int, default=6, help="who take part, and as many who don't")
    options.add_argument("--work", type=Path, default=Path("runs/adapter_worth"))
    chosen = options.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    talker = Talker(adapter=Adapter(), sampling_steps=1, stride=8, mouth_emphasis=chosen.mouth_emphasis)
    clients = list(range(chosen.people))
    clips = {
        c: [prepared(talker, chosen.group, c, take, chosen.lips, chosen.work) for take in range(CLIPS)] for c in clients
    }
    groups = {"took part": clients, "took no part": [OTHERS + c for c in clients]}
    before = {name: measured(talker, chosen.group, people) for name, people in groups.items()}
    local = LocalTraining(chosen.steps, chosen.batch_size, chosen.learning_rate)
    fabric, parameters = Fabric(accelerator="cpu", devices=1), talker.exchanged_parameters()
    state: dict[str, Tensor] = copy_state(parameters)
    told = {}
    for number in range(chosen.rounds):
        ends = []
        for client in clients:
            load_state(parameters, state)
            train_locally(fabric, talker, clips[client], local, 0, str(client), number, chosen.rounds)
            ends.append(copy_state(parameters))
        state = {name: torch.stack([end[name] for end in ends]).mean(0) for name in state}
        load_state(parameters, state)
        if number + 1 in (1, chosen.rounds):
            for name, people in groups.items():
                told[f"round {number + 1}, {name}"] = found = compared(
                    measured(talker, chosen.group, people), before[name]
                )
                text = "  ".join(
                    f"{key} {found[key]:+.3f} [{found[key + '_low']:+.3f}, {found[key + '_high']:+.3f}]"
                    for key in ("psnr_mouth", "mouth_corr", "mouth_corr_pooled")
                )
                print(f"round {number + 1}  {name:12}  {text}", flush=True)
    settings = {name: str(value) for name, value in vars(chosen).items()}
    name = f"{chosen.group}-lr-{chosen.learning_rate:g}-emphasis-{chosen.mouth_emphasis:g}-{chosen.lips}.json"
    write_json(chosen.work / name, settings | told)


if __name__ == "__main__":
    main()
