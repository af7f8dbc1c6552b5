"""How well lips are heard from the speech of people whom no network has heard.

    python scripts/check_hearing.py CLIENTS TRACKS --people m3 w2 w3 s10 [--network FILE...] [--json OUT.json]

CLIENTS are clips of `fedtalk prepare`, TRACKS what scripts/mouth_tracks.py read in them. For each clip, the correlation of
each of `LIPS` as heard with what the face mesh saw; then the means over clips, the same of private SynthTalk speakers, and how
far lips open in a second of silence after speech, as a share of their opening in speech. Heard by what ships (the mean of two
networks), by each of the two alone, and by any FILE of `fedtalk.encoders.speech_module`, or several FILEs joined by + whose
lips are averaged.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedtalk.data.clip import SAMPLE_RATE, Clip
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.encoders.mel import log_mel
from fedtalk.encoders.speech import heard_lips, lips_network, speech_network
from fedtalk.encoders.speech_network import LIPS, SpeechNetwork

SPEAKERS, FRAMES = range(40, 56), 100
Hear = Callable[[Tensor], Tensor]
"""(640 F,) sound to (F, 3) lips."""


def hearing(networks: list[SpeechNetwork]) -> Hear:
    """By the mean of networks."""

    @torch.no_grad()
    def hear(audio: Tensor) -> Tensor:
        mel = log_mel(audio * (0.1 / audio.square().mean().sqrt().clamp_min(1e-4)))[None]
        return torch.stack([network(mel)[1][0] for network in networks]).mean(0)

    return hear


def correlations(heard: np.ndarray, seen: np.ndarray) -> list[float]:
    """Of columns (F, K)."""
    return [float(np.corrcoef(one, other)[0, 1]) for one, other in zip(heard.T, seen.T, strict=True)]


def people(hear: Hear, clients: Path, tracks: Path, names: list[str]) -> dict[str, list[float]]:
    """By clip: correlations of `LIPS`."""
    found = {}
    for path in (path for name in names for path in sorted((clients / name).glob("*.npz"))):
        with np.load(tracks / path.parent.name / path.name) as stored:
            seen = np.stack([stored[name] for name in LIPS], 1)
        heard = hear(torch.from_numpy(Clip.load(path).audio)).numpy()
        found[f"{path.parent.name}/{path.stem}"] = correlations(heard, seen)
    return found


def synthtalk(hear: Hear) -> dict[str, float]:
    """``opening``: mean correlation over private speakers; ``silence``: of a second after them, beside their speech."""
    opening, silence = [], []
    for index in SPEAKERS:
        clip = make_clip(Speaker.draw(0, "private", index), 0, FRAMES, 32)
        audio = torch.from_numpy(clip.audio)
        assert clip.openness is not None
        opening.append(correlations(hear(audio)[:, :1].numpy(), clip.openness[:, None])[0])
        lips = hear(torch.cat([audio, torch.zeros(SAMPLE_RATE)]))[:, 0]
        silence.append(float(lips[FRAMES + 8 :].mean() / lips[:FRAMES].mean()))
    return {"opening": float(np.mean(opening)), "silence": float(np.mean(silence))}


def measured(hear: Hear, clients: Path, tracks: Path, names: list[str]) -> dict[str, object]:
    clips = people(hear, clients, tracks, names)
    means = dict(zip(LIPS, np.mean(list(clips.values()), 0).tolist(), strict=True))
    return {"clips": clips, "mean": means, "synthtalk": synthtalk(hear)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", type=Path)
    parser.add_argument("tracks", type=Path)
    parser.add_argument("--people", nargs="+", required=True)
    parser.add_argument("--network", nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ways: dict[str, Hear] = {
        "shipped": heard_lips,
        "speech.safetensors": hearing([speech_network()]),
        "lips.safetensors": hearing([lips_network()]),
    }
    for files in arguments.network:
        ways[files] = hearing([SpeechNetwork.load(file) for file in files.split("+")])
    results = {}
    for name, hear in ways.items():
        results[name] = made = measured(hear, arguments.clients, arguments.tracks, arguments.people)
        print(f"\n{name}: synthtalk {made['synthtalk']}\n| clip | {' | '.join(LIPS)} |\n| --- |{' ---: |' * len(LIPS)}")
        for clip, values in [*made["clips"].items(), ("mean", made["mean"].values())]:
            print(f"| {clip} | {' | '.join(f'{value:.3f}' for value in values)} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
