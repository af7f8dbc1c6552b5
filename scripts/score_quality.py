#!/usr/bin/env python
"""How well clients' own scores tell the reliable from the unreliable: area under the ROC curve by signal and kind of fault.

    python scripts/score_quality.py [--people CLIENTS] [--left_out m3 s10 w2 w3] [--speakers 12] [--paper 4] [--write [LIMIT ...]]

Every person is a reliable client with the clips as they are, and an unreliable one by each fault of `fedtalk.data.faults`;
strangers are one clip each of others of the same group. Limits of the score come from public SynthTalk speakers, and from the
real people of CLIENTS (a folder of `fedtalk prepare`) but for those left out; --write makes them, or those named alone,
fedtalk/weights/quality.json. Tables are of private SynthTalk speakers, of the people left out, and of the public ones beside
them. --paper also measures the paper's scores (identity and stability of what the shipped backbone makes of held-out clips) on
that many private speakers, which takes minutes each. What is measured is kept in --work; the same command goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from fedtalk.data.clip import Clip
from fedtalk.data.faults import ALL_FAULTS, FAULTS, WRONG_PERSON, faulty
from fedtalk.data.names import not_data
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.randomness import numpy_generator
from fedtalk.storage import atomic_path, write_json
from fedtalk.talker.adapters import Adapter
from fedtalk.talker.module import Talker
from fedtalk.talker.quality import LIMITED, SIGNALS, Limits, evidence, quality, shipped_limits, signals

Evidence = list[dict[str, Tensor]]
Group = dict[str, dict[str, Evidence]]
"""By client, by condition (``ok`` or a fault), the evidence of its clips."""
OK = "ok"
AGAINST = {"sharpness": "blurred", "steadiness": "flicker", "lips": "shifted_audio", "identity": WRONG_PERSON}
"""Which fault a signal is for."""
SPAN = 40
"""Frames of a clip."""


def auc(reliable: Sequence[float], unreliable: Sequence[float]) -> float:
    """How often a reliable client scores above an unreliable one, ties counting half."""
    one, other = np.asarray(reliable)[:, None], np.asarray(unreliable)[None]
    return float((one > other).mean() + 0.5 * (one == other).mean())


def speakers(group: str, count: int, clips: int) -> Iterator[tuple[str, str, Callable[[], list[Clip]]]]:
    """Name, person and clips of SynthTalk clients; 64 px, since that is what the signals look at."""
    for index in range(count):
        speaker = Speaker.draw(0, group, index)
        yield (
            speaker.name,
            speaker.name,
            lambda s=speaker: [make_clip(s, take, SPAN, 64) for take in range(clips)],  # type: ignore[misc]
        )


def people(root: Path, left_out: Sequence[str], which: bool) -> Iterator[tuple[str, str, Callable[[], list[Clip]]]]:
    """Clients of real people: the first and the last frames of two sentences each, of at most three pairs a person."""

    def cut(files: list[Path]) -> list[Clip]:
        found = [Clip.load(file) for file in files]
        spans = [min(SPAN, len(clip) // 2) for clip in found]
        return [
            part
            for clip, span in zip(found, spans, strict=True)
            for part in (clip.window(0, span), clip.window(len(clip) - span, span))
        ]

    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not not_data(path.name)):
        files = sorted(folder.glob("*.npz"))[:6]
        for start in range(0, len(files), 2):
            if (folder.name in left_out) == which:
                yield f"{folder.name}-{start}", folder.name, lambda f=files[start : start + 2]: cut(f)  # type: ignore[misc]


def measured(name: str, clips: Callable[[], list[Clip]], work: Path) -> dict[str, Evidence]:
    """Evidence of a client's clips under every condition but strangers, from ``work`` if it is there."""
    path = work / f"{name}.safetensors"
    if not path.exists():
        made = clips()
        generator = numpy_generator(0, "faults", name)
        under = {OK: made} | {fault: [faulty(clip, fault, generator) for clip in made] for fault in FAULTS}
        flat = {
            f"{condition}/{number}/{key}": value.contiguous()
            for condition, some in under.items()
            for number, clip in enumerate(some)
            for key, value in evidence(clip).items()
        }
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(flat))
        print(name, flush=True)
    found: dict[str, Evidence] = {}
    for key, value in sorted(load_file(path).items()):
        condition, number, signal = key.split("/")
        some = found.setdefault(condition, [])
        some += [{} for _ in range(int(number) + 1 - len(some))]
        some[int(number)][signal] = value
    return found


def group_of(clients: Iterator[tuple[str, str, Callable[[], list[Clip]]]], work: Path) -> Group:
    """The group, with strangers: for a client's clips those of others, another person each as far as there are so many."""
    persons: dict[str, str] = {}
    group: Group = {}
    for name, person, clips in clients:
        group[name], persons[name] = measured(name, clips, work), person
    for name in group:
        others = sorted({person for person in persons.values() if person != persons[name]})
        if not others:
            continue
        order = numpy_generator(0, "strangers", name).permutation(others)
        strangers = []
        for number in range(len(group[name][OK])):
            one = next(key for key, person in persons.items() if person == order[number % len(order)])
            strangers.append(group[one][OK][number // len(order) % len(group[one][OK])])
        group[name][WRONG_PERSON] = strangers
    return group


def limits_of(groups: Sequence[Group]) -> dict[str, Limits]:
    """By what is limited (`LIMITED`): 0 from one deviation above the mean of those with its fault, 1 from one deviation below the
    reliable ones', of the group in which the latter is lower.
    """
    options: dict[str, list[Limits]] = {}
    for signal, fault in AGAINST.items():
        for group in groups:
            reliable, faulty_ones = (
                np.array([signals(client[condition])[signal] for client in group.values() if condition in client])
                for condition in (OK, fault)
            )
            drawn = next(iter(group.values()))[OK][0]["drawn"]
            options.setdefault(signal if drawn or signal != "identity" else "identity_real", []).append(
                Limits(
                    float(faulty_ones.mean() + faulty_ones.std(ddof=1)), float(reliable.mean() - reliable.std(ddof=1))
                )
            )
    return {name: min(some, key=lambda option: option.high) for name, some in options.items()}


def table(group: Group, limits: dict[str, Limits]) -> dict[str, dict[str, float]]:
    """By signal and for the score itself: mean of the reliable, and by fault the AUC."""
    rows: dict[str, dict[str, float]] = {}
    measures: dict[str, Callable[[Evidence], float]] = {
        signal: (lambda clips, signal=signal: signals(clips)[signal])  # type: ignore[misc]
        for signal in SIGNALS
    }
    measures["score"] = lambda clips: quality(clips, limits)
    for name, measure in measures.items():
        reliable = [measure(client[OK]) for client in group.values()]
        rows[name] = {"mean": float(np.mean(reliable)), "least": float(np.min(reliable))}
        for fault in ALL_FAULTS:
            values = [measure(client[fault]) for client in group.values() if fault in client]
            if values:
                rows[name] |= {fault: auc(reliable, values), f"{fault}_mean": float(np.mean(values))}
    return rows


def papers(count: int, work: Path) -> dict[str, dict[str, float]]:
    """The paper's scores before the first round, on private speakers under every condition."""
    path = work / "paper.json"
    talker = Talker(adapter=Adapter(), sampling_steps=1).eval()
    found: dict[str, dict[str, list[float]]] = {}
    import json

    kept = json.loads(path.read_text()) if path.exists() else {}
    for index in range(count):
        for condition in (OK, *ALL_FAULTS):
            key = f"{index}/{condition}"
            if key not in kept:
                speaker = Speaker.draw(0, "private", index, WRONG_PERSON if condition == WRONG_PERSON else None)
                clips = [make_clip(speaker, take, 24, 128) for take in range(3)]
                if condition in FAULTS:
                    generator = numpy_generator(0, "faults", key)
                    clips = [faulty(clip, condition, generator) for clip in clips]
                prepared = [talker.prepare_clip(clip) for clip in clips]
                kept[key] = talker.reliability(prepared[2:], prepared[:2], torch.Generator().manual_seed(index))
                write_json(path, kept)
                print("paper", key, flush=True)
            identity, stability = kept[key]
            for name, value in (
                ("identity", identity),
                ("stability", stability),
                ("score", 0.6 * identity + 0.4 * stability),
            ):
                found.setdefault(name, {}).setdefault(condition, []).append(value)
    return {
        name: {
            "mean": float(np.mean(by[OK])), "least": float(np.min(by[OK])),
            **{fault: auc(by[OK], by[fault]) for fault in ALL_FAULTS},
            **{f"{fault}_mean": float(np.mean(by[fault])) for fault in ALL_FAULTS},
        }
        for name, by in found.items()
    }  # fmt: skip


def markdown(title: str, clients: int, rows: dict[str, dict[str, float]]) -> str:
    lines = [f"{title}, {clients} clients", "", "| | reliable: mean (least) | " + " | ".join(ALL_FAULTS) + " |"]
    lines.append("| --- | --- |" + " ---: |" * len(ALL_FAULTS))
    for name, row in rows.items():
        cells = (f"{row[fault]:.2f} ({row[f'{fault}_mean']:.2f})" if fault in row else "" for fault in ALL_FAULTS)
        lines.append(f"| {name} | {row['mean']:.2f} ({row['least']:.2f}) | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--people", type=Path)
    options.add_argument("--left_out", nargs="*", default=["m3", "s10", "w2", "w3"])
    options.add_argument("--speakers", type=int, default=12, help="drawn people of each group; 0 for none")
    options.add_argument("--clips", type=int, default=3)
    options.add_argument("--paper", type=int, default=0)
    options.add_argument("--work", type=Path, default=Path("runs/score_quality"))
    options.add_argument(
        "--write",
        nargs="*",
        choices=LIMITED,
        metavar="LIMIT",
        help="make them fedtalk/weights/quality.json; all of them by default",
    )
    chosen = options.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    drawn = ("public", "private") if chosen.speakers else ()
    groups = {name: group_of(speakers(name, chosen.speakers, chosen.clips), chosen.work) for name in drawn}
    if chosen.people is not None:
        groups["people"] = group_of(people(chosen.people, chosen.left_out, False), chosen.work)
        groups["people left out"] = group_of(people(chosen.people, chosen.left_out, True), chosen.work)
    limits = shipped_limits()
    if chosen.write is not None:
        measured_limits = limits_of([groups[name] for name in ("public", "people") if name in groups])
        written = chosen.write or LIMITED
        if not_measured := [name for name in written if name not in measured_limits]:
            raise SystemExit(
                f"--write: {', '.join(not_measured)} can't be measured on the groups that were asked for; 'identity' needs "
                "--speakers, 'identity_real' needs --people. Name the limits to write, or ask for both"
            )
        limits = limits | {name: measured_limits[name] for name in written}
    result: dict[str, Any] = {
        "limits": {name: {"low": round(limit.low, 4), "high": round(limit.high, 4)} for name, limit in limits.items()},
        "tables": {name: table(group, limits) for name, group in groups.items()},
        "clients": {name: len(group) for name, group in groups.items()},
        "date": time.strftime("%Y-%m-%d"),
    }
    if chosen.paper:
        result["paper"] = papers(chosen.paper, chosen.work)
    write_json(chosen.work / "score_quality.json", result)
    if chosen.write is not None:
        write_json(
            Path(__file__).parents[1] / "fedtalk/weights/quality.json",
            {"limits": result["limits"], "date": result["date"]},
        )
    for name, rows in result["tables"].items():
        print(markdown(name, len(groups[name]), rows))
    if chosen.paper:
        print(markdown("the paper's scores, before the first round", chosen.paper, result["paper"]))
    print("limits:", result["limits"])


if __name__ == "__main__":
    main()
