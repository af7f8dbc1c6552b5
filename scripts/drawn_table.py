"""What a talker does with drawn faces (SynthTalk, private speakers) without an adapter: a quick look at a backbone.

    python scripts/drawn_table.py [--backbones shipped FOLDER ...] [--speakers 8] [--steps 1]

Each speaker's clip is dubbed with its own speech and with the next one's, from a picture of another clip. Opening of the mouth
by the mouth probe; mouth PSNR as in scripts/people_table.py, over the picture that stands still and over the picture moved to
the eyes.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from people_table import correlation, mouth_psnr

from fedtalk.data.clip import Clip
from fedtalk.data.framing import align
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.talker.module import Talker
from fedtalk.talker.quality import mouth_probe

COLUMNS = ("own", "amplitude", "donor", "own, swapped", "PSNR - still", "PSNR - moved")
TAKE, FRAMES, SIZE = 100, 40, 128


def opening(frames: np.ndarray, clip: Clip) -> np.ndarray:
    return mouth_probe().measure(frames, clip.mouth, clip.eyes)


def row(talker: Talker, speakers: int, index: int) -> list[float]:
    """One speaker's numbers."""
    speaker, next_one = (Speaker.draw(0, "private", number % speakers) for number in (index, index + 1))
    clip, donor = make_clip(speaker, TAKE, FRAMES, SIZE), make_clip(next_one, TAKE, FRAMES, SIZE)
    reference = make_clip(speaker, TAKE + 1, FRAMES, SIZE).reference(5)
    dub = np.stack([frame.numpy() for frame in talker.dub(clip, reference)])
    swapped = np.stack([frame.numpy() for frame in talker.dub(clip, reference, audio=torch.from_numpy(donor.audio))])
    truth, own, others = opening(clip.frames, clip), opening(dub, clip), opening(swapped, clip)

    def psnr(frames: np.ndarray) -> float:
        return mouth_psnr(frames, clip.frames, clip.mouth, clip.eyes)

    return [
        correlation(own, truth), float(own.std() / truth.std()), correlation(others, opening(donor.frames, donor)),
        correlation(others, truth), psnr(dub) - psnr(np.repeat(reference.frame[None], len(clip), 0)),
        psnr(dub) - psnr(align(reference.frame, reference.eyes, clip.eyes)),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["shipped"])
    parser.add_argument("--speakers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for backbone in chosen.backbones:
        talker = Talker(backbone, sampling_steps=chosen.steps).eval()
        rows = [row(talker, chosen.speakers, index) for index in range(chosen.speakers)]
        print(f"{backbone:24s}" + "".join(f"{name:>14s}" for name in COLUMNS))
        for name, values in [*((f"private-{i:04d}", one) for i, one in enumerate(rows)), ("mean", np.mean(rows, 0))]:
            print(f"{name:24s}" + "".join(f"{value:14.2f}" for value in values), flush=True)


if __name__ == "__main__":
    main()
