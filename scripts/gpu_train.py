"""Train for so many seconds: `fedtalk fit` is begun, its rounds are timed, and it goes on with as many rounds as the time
allows, so that the learning rate has fallen when the time is over.

    python scripts/gpu_train.py SECONDS RUN -- --config configs/backbone_wide.yaml --config configs/gpu.yaml [...]

What follows -- are options of `fedtalk fit`. RUN/backbone is the result, whatever happens: should the fit not come to its end in
time, its last checkpoint is exported. The same command goes on with what is in RUN.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import yaml

from fedtalk.federation.checkpoint import load_checkpoint
from fedtalk.talker.backbone import SHIPPED, Architecture
from fedtalk.talker.module import Talker
from fedtalk.training.module import load_state

TIMED = 3
"""Rounds after which is known what a round takes: the time between the first and the last of them."""
RESERVE = 20.0
"""Seconds kept for the export."""


def start(options: list[str], run: Path, *more: str) -> subprocess.Popen:
    place = ["--trainer.default_root_dir", str(run), "--trainer.switch_off", "[videos]"]
    go_on = ["--ckpt_path", "last"] if (run / "checkpoints" / "last.ckpt").exists() else []
    return subprocess.Popen([sys.executable, "-m", "fedtalk.cli", "fit", *options, *place, *go_on, *more])


def stop(fit: subprocess.Popen) -> None:
    """Ask it to stop, as Ctrl-C would; it writes its checkpoint."""
    fit.terminate()
    try:
        fit.wait(15)
    except subprocess.TimeoutExpired:
        fit.kill()
        fit.wait()


def rounds_timed(fit: subprocess.Popen, checkpoint: Path, end: float) -> list[float]:
    """When each of the first rounds ended."""
    seen: list[float] = []
    latest = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    while fit.poll() is None and time.monotonic() < end and len(seen) < TIMED:
        now = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        if now != latest:
            latest = now
            seen.append(time.monotonic())
        time.sleep(0.05)
    return seen


def export(run: Path) -> None:
    """The backbone of the last checkpoint."""
    model = yaml.safe_load((run / "config.yaml").read_text())["model"]
    settings = model.get("init_args", model)
    shape = settings.get("architecture")
    talker = Talker(settings.get("backbone", SHIPPED), Architecture(**shape) if shape else None)
    state = load_checkpoint(run / "checkpoints" / "last.ckpt", talker)["server"]["state"]
    load_state(talker.exchanged_parameters(), state)
    talker.backbone.save(run / "backbone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", type=float)
    parser.add_argument("run", type=Path)
    parser.add_argument("options", nargs="+")
    chosen = parser.parse_args()
    begun = time.monotonic()
    end, checkpoint = begun + chosen.seconds, chosen.run / "checkpoints" / "last.ckpt"
    fit = start(chosen.options, chosen.run)
    ends = rounds_timed(fit, checkpoint, end - RESERVE)
    if len(ends) < TIMED:
        stop(fit)
        print(f"gpu_train.py: {len(ends)} rounds in {time.monotonic() - begun:.0f} s", flush=True)
        if not checkpoint.exists():
            sys.exit("gpu_train.py: no round came to its end")
    else:
        each = (ends[-1] - ends[0]) / (TIMED - 1)
        starting = ends[0] - begun - each
        stop(fit)
        left = end - RESERVE - time.monotonic() - starting
        rounds = TIMED + max(1, int(left / each))
        print(f"gpu_train.py: a round takes {each:.1f} s, starting {starting:.0f} s: {rounds} rounds", flush=True)
        fit = start(chosen.options, chosen.run, "--trainer.rounds", str(rounds))
        try:
            fit.wait(max(1.0, end - 8 - time.monotonic()))
        except subprocess.TimeoutExpired:
            stop(fit)
    if fit.returncode or not (chosen.run / "backbone" / "backbone.json").exists():
        export(chosen.run)
    print(f"gpu_train.py: {chosen.run / 'backbone'} after {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
