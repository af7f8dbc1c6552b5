"""Copies clips of `fedtalk prepare` with how far the lips are open, as scripts/mouth_tracks.py read it.

    python scripts/label_clips.py CLIENTS TRACKS OUT

Openness is ``min(1, gap / 0.35)``, the gap between the inner lips over the distance between the eyes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fedtalk.data.clip import Clip
from fedtalk.data.lips import OPENEST


def main() -> None:
    clients, tracks, out = map(Path, sys.argv[1:])
    for path in sorted(clients.glob("[!.]*/*.npz")):
        clip, name = Clip.load(path), path.relative_to(clients)
        with np.load(tracks / name) as stored:
            clip.openness = np.clip(stored["opening"] / OPENEST, 0, 1).astype(np.float32)
        clip.save(out / name)


if __name__ == "__main__":
    main()
