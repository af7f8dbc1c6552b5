"""Prepared clips small enough to take along: pictures as H.264 of high quality, the rest as it is.

    python scripts/gpu_people.py pack CLIENTS PACKED [--most 40] [--without m3 s10]
    python scripts/gpu_people.py unpack PACKED CLIENTS

CLIENTS is a folder of `fedtalk prepare`. What comes out again differs from what went in by some 1.5 levels of 255. Unpacking
needs no PyAV: OpenCV decodes.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path

import cv2
import numpy as np

PIXELS, RATE_FACTOR = "yuv444p", "12"


def pack(clip: Path, into: Path) -> None:
    """Write ``into``.mp4 (pictures) and ``into``.npz (everything else) of one clip."""
    import av

    with np.load(clip, allow_pickle=False) as stored:
        arrays = dict(stored)
    frames = arrays.pop("frames")
    with av.open(str(into.with_suffix(".mp4")), "w") as container:
        stream = container.add_stream("libx264", 25, options={"crf": RATE_FACTOR, "preset": "veryslow", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], PIXELS
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    np.savez_compressed(into.with_suffix(".npz"), allow_pickle=False, **arrays)


def unpack(packed: Path, into: Path) -> None:
    """Write the clip that `pack` was given; ``packed`` is its ``.npz``."""
    capture, frames = cv2.VideoCapture(str(packed.with_suffix(".mp4"))), []
    while (found := capture.read())[0]:
        frames.append(cv2.cvtColor(found[1], cv2.COLOR_BGR2RGB))
    with np.load(packed, allow_pickle=False) as stored:
        arrays = dict(stored)
    if len(frames) != len(arrays["eyes"]):
        sys.exit(f"{packed}: expected {len(arrays['eyes'])} pictures beside it, got {len(frames)}; pack again")
    made = io.BytesIO()
    np.savez(made, allow_pickle=False, frames=np.stack(frames), **arrays)
    temporary = into.with_suffix(".part")
    temporary.write_bytes(made.getvalue())
    os.replace(temporary, into)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pack", "unpack"])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--most", type=int, default=40, help="clips of one person, spread evenly over all there are")
    parser.add_argument("--without", nargs="*", default=[], help="people who stay here")
    chosen = parser.parse_args()
    people = {path.name: sorted(path.glob("*.npz")) for path in sorted(chosen.source.glob("[!.]*/"))}
    if not any(people.values()):
        sys.exit(f"{chosen.source}: expected a folder a person with clips in it, got none")
    for name, clips in people.items():
        if name in chosen.without:
            continue
        (chosen.target / name).mkdir(parents=True, exist_ok=True)
        count = min(chosen.most, len(clips))
        for clip in (clips[i * len(clips) // count] for i in range(count)):
            (pack if chosen.what == "pack" else unpack)(clip, chosen.target / name / clip.name)


if __name__ == "__main__":
    main()
