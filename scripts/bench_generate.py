"""How fast `fedtalk generate` is, and that its memory does not grow with the speech.

Dubs a recording of a drawn face with 10 s and with 60 s of speech, each in a process of its own, and prints frames a second, the
highest resident memory, and the overhead: wall time over the time in the denoiser's and the codec's own forward passes.

    python scripts/bench_generate.py --json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SECONDS = (10, 60)


def _inputs(folder: Path, seconds: float, size: int) -> tuple[Path, Path]:
    """A recording of 4 s, which is played forth and back, and speech."""
    from fedtalk.data.media import write_audio
    from fedtalk.data.synthtalk import Speaker, make_clip
    from fedtalk.data.video_writer import VideoWriter

    clip = make_clip(Speaker.draw(0, "public", 0), 0, 100, size)
    with VideoWriter(folder / "recording.mp4") as writer:
        for frame in clip.frames:
            writer.write(np.pad(frame, ((20, 20), (60, 60), (0, 0)), mode="edge"))
    write_audio(folder / "speech.wav", np.resize(clip.audio, round(seconds * 16_000)))
    return folder / "recording.mp4", folder / "speech.wav"


def measure(seconds: float, backbone: str, steps: int, stride: int, guidance: float, size: int) -> dict[str, float]:
    """One dub in this process."""
    import torch

    from fedtalk.talker.production.generate import generate, load_talker

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    ready = load_talker(backbone=backbone, device="cpu")
    network = ready.talker.backbone
    spent = 0.0

    def timed(function):
        def run(*arguments, **named):
            nonlocal spent
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                spent += time.perf_counter() - started

        return run

    network.denoiser.forward = timed(network.denoiser.forward)
    network.codec.encode, network.codec.decode = timed(network.codec.encode), timed(network.codec.decode)
    with tempfile.TemporaryDirectory() as folder:
        recording, speech = _inputs(Path(folder), seconds, size)
        film = generate(speech, video=recording, talker=ready, steps=steps, stride=stride, guidance=guidance)
        made = film.save(Path(folder) / "out.mp4")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": seconds, "frames": made.frames, "frames_per_s": round(made.frames / made.took, 2),
        "peak_rss_mb": round(peak, 1), "overhead": round(made.took / spent, 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=SECONDS, help="lengths of speech")
    parser.add_argument("--backbone", default="shipped")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=256, help="side of the drawn face in the recording, in pixels")
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(
            options.seconds[0], options.backbone, options.steps, options.stride, options.guidance, options.size
        )))  # fmt: skip
        return
    rows = []
    for seconds in options.seconds:
        command = [sys.executable, __file__, "--one", "--seconds", str(seconds), "--backbone", options.backbone,
                   "--steps", str(options.steps), "--stride", str(options.stride), "--guidance", str(options.guidance),
                   "--size", str(options.size)]  # fmt: skip
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
    peaks = [row["peak_rss_mb"] for row in rows]
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "runs": rows,
        "peak_growth": max(peaks) / min(peaks),
    }
    if options.json:
        print(json.dumps(result))
        return
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    print(f"peak of the longest over that of the shortest: {result['peak_growth']:.3f}")


if __name__ == "__main__":
    main()
