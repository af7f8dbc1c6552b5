"""Whether what measures mouths sees real ones: each probe against itself at other sizes, and against an independent face mesh.

    python scripts/check_probe.py CLIENTS TRACKS [--people m3 s10 w2 w3] [--held_out 1.5]

CLIENTS are clips of `fedtalk prepare` at 128 px with --clip_seconds null, TRACKS what scripts/mouth_tracks.py read in them. Also
says how much of each file's last seconds, which `FolderData` holds out, is speech. Exits with 1 where a probe's mean correlation
with itself is below 0.9, or less than a quarter of the held-out stretches is speech.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from fedtalk.data.clip import FRAME_RATE, SAMPLES_PER_FRAME, Clip
from fedtalk.evaluation.openness import openness_probe

SIZES = (96, 192)
ITSELF, SPOKEN = 0.9, 0.25


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1]) if one.std() > 1e-6 and other.std() > 1e-6 else 0.0


def resized(clip: Clip, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames, mouth and eyes at another size."""
    scale = size / clip.size
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    frames = np.stack([cv2.resize(frame, (size, size), interpolation=way) for frame in clip.frames])
    return frames, (clip.mouth + 0.5) * scale - 0.5, (clip.eyes + 0.5) * scale - 0.5


def spoken(clip: Clip, seconds: float) -> float:
    """Share of the clip's last ``seconds`` between the first and the last sound above a tenth of the loudest."""
    loud = np.sqrt(np.square(clip.audio.reshape(-1, SAMPLES_PER_FRAME)).mean(1))
    above = np.flatnonzero(loud > 0.1 * loud.max())
    speech = np.zeros(len(clip), bool)
    speech[above[0] : above[-1] + 1] = True
    return float(speech[-round(seconds * FRAME_RATE) :].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", type=Path)
    parser.add_argument("tracks", type=Path)
    parser.add_argument("--people", nargs="+", default=["m3", "s10", "w2", "w3"])
    parser.add_argument("--held_out", type=float, default=1.5, help="seconds at the end of each file")
    arguments = parser.parse_args()
    paths = [path for name in arguments.people for path in sorted((arguments.clients / name).glob("*.npz"))]
    clips, failed = [Clip.load(path) for path in paths], False
    for name in ("landmarks", "synthtalk"):
        probe = openness_probe(name)
        rows = []
        for path, clip in zip(paths, clips, strict=True):
            own = probe.measure(clip.frames, clip.mouth, clip.eyes)
            itself = [correlation(own, probe.measure(*resized(clip, size))) for size in SIZES]
            with np.load(arguments.tracks / path.parent.name / path.name) as stored:
                rows.append([*itself, correlation(own, stored["opening"])])
            sizes = "  ".join(f"{size} px {value:.2f}" for size, value in zip(SIZES, itself, strict=True))
            print(f"{name:10s} {path.parent.name:4s} {path.stem:24s} itself at {sizes}   mesh {rows[-1][-1]:.2f}")
        means = np.mean(rows, 0)
        failed |= bool(means[: len(SIZES)].min() < ITSELF)
        print(f"{name}: mean " + "  ".join(f"{value:.2f}" for value in means))
    shares = {
        f"{p.parent.name}/{p.stem}": spoken(clip, arguments.held_out) for p, clip in zip(paths, clips, strict=True)
    }
    print(f"speech in the last {arguments.held_out} s: " + "  ".join(f"{k} {v:.2f}" for k, v in shares.items()))
    sys.exit(failed or float(np.mean(list(shares.values()))) < SPOKEN)


if __name__ == "__main__":
    main()
