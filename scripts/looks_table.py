"""What a person's looks in closed form bring by how much of them was seen: mouth PSNR of the dub's last second, no LoRA.

    python scripts/looks_table.py CLIENTS --people s1 s26 s31 s32 id2 m1 m2 w1 [--sentences 2] [--others 3] [--json OUT.json]

CLIENTS as for scripts/people_table.py. Clips of three seconds and more are dubbed from their first frame, without looks, with
looks from their own first second and first two ("own": a personal adapter's; "recording": as `fedtalk generate --video` learns
them), and with looks from 1 and up to --others other sentences of the person, where there are any. dB over the same dub without
looks; without looks and with those of two seconds also over the moved reference. 95 % intervals by resampling people, each
counting once.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from people_table import interval, mouth_psnr, own_looks

from fedtalk.data.clip import FRAME_RATE, Clip
from fedtalk.data.framing import align
from fedtalk.talker.batches import surrounded
from fedtalk.talker.masks import lower_face
from fedtalk.talker.module import Talker
from fedtalk.talker.mouth_looks import MouthLooks

BEFORE = 6
"""Frames that are dubbed before those that are measured, so that windows overlap as in a longer dub."""


def psnr(talker: Talker, clip: Clip) -> float:
    """Of the last second."""
    first = len(clip) - FRAME_RATE - BEFORE
    part = clip.window(first, len(clip) - first)
    windows = list(talker.generation.windows(torch.from_numpy(clip.audio)))[first:]
    faces = zip(part.frames, part.eyes, strict=True)
    drawn = talker.generation.dub_faces(faces, len(part), clip.reference(0), iter(windows))
    made = np.stack([face.permute(1, 2, 0).numpy() for face in drawn]).astype(float)
    alpha = lower_face(part.eyes, clip.size)[1].permute(0, 2, 3, 1).numpy()
    dub = np.round(alpha * made + (1 - alpha) * part.frames).astype(np.uint8)
    return mouth_psnr(dub, part.frames, part.mouth, part.eyes, BEFORE)


def moved(clip: Clip) -> float:
    """Of the first frame moved to the last second's eyes."""
    part, reference = clip.window(len(clip) - FRAME_RATE, FRAME_RATE), clip.reference(0)
    hidden, _ = lower_face(part.eyes, clip.size)
    still = surrounded(align(reference.frame, reference.eyes, part.eyes), part.frames, hidden)
    return mouth_psnr(still, part.frames, part.mouth, part.eyes, 0)


def sums(talker: Talker, clip: Clip, frames: int) -> np.ndarray:
    """Of a clip's beginning, as a personal adapter learns them: beside puppets without looks."""
    talker.looks = None
    return talker.prepare_clip(clip.window(0, frames))["missing"].numpy()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("clients", type=Path)
    options.add_argument("--people", nargs="+", required=True)
    options.add_argument("--sentences", type=int, default=1, help="measured of each")
    options.add_argument("--others", type=int, default=3, help="other sentences that looks are learned from")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    talker = Talker(sampling_steps=1).eval()
    gains: dict[str, dict[str, list[float]]] = {}
    for person in chosen.people:
        paths = sorted((chosen.clients / person).glob("*.npz"))
        clips = [Clip.load(path) for path in paths[: chosen.sentences + chosen.others]]
        whole = [sums(talker, clip, len(clip)) for clip in clips] if len(clips) > 1 else []
        for index, clip in enumerate(clips[: chosen.sentences]):
            learned = {f"own {n} s": [sums(talker, clip, n * FRAME_RATE)] for n in (1, 2)}
            rest = [one for number, one in enumerate(whole) if number != index][: chosen.others]
            for count in sorted({1, len(rest)} if rest else set()):
                learned["1 other" if count == 1 else "others"] = rest[:count]
            talker.looks = None
            without, still = psnr(talker, clip), moved(clip)
            gains.setdefault("none - moved", {}).setdefault(person, []).append(without - still)
            fitted = {name: MouthLooks.fitted(known) for name, known in learned.items()}
            fitted["recording, 2 s"] = own_looks(clip, 2 * FRAME_RATE)
            for name, looks in fitted.items():
                talker.looks = looks
                gained = psnr(talker, clip) - without
                gains.setdefault(name, {}).setdefault(person, []).append(gained)
                if name == "own 2 s":
                    gains.setdefault("own 2 s - moved", {}).setdefault(person, []).append(gained + without - still)
        found = {name: round(float(np.mean(of[person])), 2) for name, of in gains.items() if person in of}
        print(person, found, flush=True)
    table = {name: {person: float(np.mean(values)) for person, values in of.items()} for name, of in gains.items()}
    for name, of in table.items():
        mean, low, high = interval(of)
        print(f"{name:16s} {len(of)} people  {mean:+.2f} dB [{low:+.2f}, {high:+.2f}]")
    if chosen.json:
        chosen.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
