"""How fast `fedtalk prepare` is and how much it keeps: seconds of work a second of video, memory, share of frames.

    python scripts/bench_prepare.py RAW [--layout folder] [--finder dlib] [--jobs 1] [--size 128] [--json]

RAW is a folder as `fedtalk prepare` reads it; of files without a person's folder (a handful of recordings) each becomes a
person. Without RAW, two drawn videos of 10 and 100 s tell whether memory grows with length (`peak_growth`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fedtalk.data.layouts import VIDEO_SUFFIXES
from fedtalk.data.prepare import prepare
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.data.video_writer import VideoWriter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", nargs="?", type=Path)
    parser.add_argument("--layout", default="folder")
    parser.add_argument("--finder", default="dlib")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--clip_seconds", type=float, default=None, help="whole stretches by default; 2 without RAW")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.raw is None:
            arguments.clip_seconds = arguments.clip_seconds or 2.0  # whole stretches are held in memory
            short, long = (measure(drawn(Path(folder) / f"{length}", length), arguments) for length in (10, 100))
            growth = round(long["peak_rss_mb"] / short["peak_rss_mb"], 3)
            result = {**long, "peak_rss_mb_10_s": short["peak_rss_mb"], "peak_growth": growth}
        else:
            result = measure(with_people(arguments.raw, Path(folder)), arguments)
    print(json.dumps(result) if arguments.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


def measure(raw: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Prepare in a process of its own, whose memory is then its peak."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (raw, vars(arguments)))


def _measured(raw: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    settings = {name: arguments[name] for name in ("layout", "finder", "jobs", "size", "clip_seconds")}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        report = prepare(raw, Path(folder) / "clients", progress=False, **settings)
        seconds = time.perf_counter() - start
    peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "videos_seconds": round(report.seconds_seen, 2),
        "kept_share": round(report.seconds_kept / report.seconds_seen, 4),
        "seconds_per_video_second": round(seconds / report.seconds_seen, 3),
        "peak_rss_mb": round(max(peaks) / 1024, 1),
        "clips": sum(report.clips.values()),
        "rejects": len(report.rejects),
    }


def with_people(raw: Path, folder: Path) -> Path:
    """The folder itself, or links to its videos, each in a folder of its own."""
    videos = sorted(path for path in raw.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
    for path in videos:
        (folder / "raw" / path.stem).mkdir(parents=True)
        (folder / "raw" / path.stem / path.name).symlink_to(path.resolve())
    return folder / "raw" if videos else raw


def drawn(folder: Path, seconds: int) -> Path:
    """A SynthTalk speaker of 256 pixels on a grey picture, for so many seconds (ten are drawn and repeated)."""
    clip = make_clip(Speaker.draw(0, "public", 0), take=0, frames=250, size=256)
    (folder / "anna").mkdir(parents=True)
    with VideoWriter(folder / "anna" / "a.mp4", audio=np.tile(clip.audio, seconds // 10)) as writer:
        for _ in range(seconds // 10):
            for frame in clip.frames:
                picture = np.full((360, 480, 3), 120, np.uint8)
                picture[50:306, 110:366] = frame
                writer.write(picture)
    return folder


if __name__ == "__main__":
    main()
