"""How fast `fedtalk generate` is, and that its memory does not grow with the speech.

Dubs a recording of a drawn face with 10 s and with 60 s of speech, each in a process of its own, and prints

- `frames_per_s` and `peak_rss_mb`, the highest resident memory;
- `overhead`: wall time over the time in the denoiser's and the codec's own forward passes while the video is made;
- `overhead_alone`: the same over those passes alone: afterwards, with nothing beside them, each kind of pass (by its inputs'
  shapes) is repeated, and its median counted as often as it occurred. Work beside the networks, in other threads, slows their
  passes, which makes `overhead` look better and leaves `overhead_alone` as it is. Speech and lip networks are overhead in both;
- `before_s`: seconds in which the speech is heard and faces are looked for, before the clock of the others starts.

    python scripts/bench_generate.py --json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


class _Passes:
    """Time in forward passes, as they happen and alone."""

    def __init__(self) -> None:
        self.spent = 0.0
        self._kinds: dict[tuple, list] = {}

    def timed(self, function: Callable) -> Callable:
        def run(*arguments: Any) -> Any:
            kind = function, *(tuple(argument.shape) for argument in arguments)
            self._kinds.setdefault(kind, [0, function, arguments])[0] += 1
            started = time.perf_counter()
            result = function(*arguments)
            self.spent += time.perf_counter() - started
            return result

        return run

    def alone(self, repeats: int = 7) -> float:
        """Seconds that all passes take with nothing beside them."""
        import torch

        total = 0.0
        for count, function, arguments in self._kinds.values():
            times = []
            for _ in range(repeats):
                started = time.perf_counter()
                with torch.no_grad():
                    function(*arguments)
                times.append(time.perf_counter() - started)
            total += count * statistics.median(times)
        return total


def measure(seconds: float, backbone: str, steps: int, stride: int, guidance: float, size: int) -> dict[str, float]:
    """One dub in this process."""
    import torch

    from fedtalk.talker.production.generate import generate, load_talker

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    ready = load_talker(backbone=backbone, device="cpu")
    network = ready.talker.backbone
    passes = _Passes()
    network.denoiser.forward = passes.timed(network.denoiser.forward)
    network.codec.encode, network.codec.decode = passes.timed(network.codec.encode), passes.timed(network.codec.decode)
    with tempfile.TemporaryDirectory() as folder:
        recording, speech = _inputs(Path(folder), seconds, size)
        started = time.perf_counter()
        film = generate(speech, video=recording, talker=ready, steps=steps, stride=stride, guidance=guidance)
        before = time.perf_counter() - started
        made = film.save(Path(folder) / "out.mp4")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": seconds, "frames": made.frames, "frames_per_s": round(made.frames / made.took, 2),
        "peak_rss_mb": round(peak, 1), "overhead": round(made.took / passes.spent, 3),
        "overhead_alone": round(made.took / passes.alone(), 3), "before_s": round(before, 2),
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
