"""What long speech does to a generated face: whether it drifts, shows seams, and shuts its mouth in silence.

Draws a portrait of a public SynthTalk speaker over SECONDS of their speech with a silence in the middle, and prints
  identity_first, identity_last   mean cosine (shipped encoder) between the reference and the first and last 5 s;
  seam                            mean change of the picture from frame to frame where a sampling window begins, over elsewhere;
  open_in_silence, open_in_speech mean opening of the mouth (shipped probe), a fifth of a second after the speech stops.

    python scripts/check_generate.py --seconds 60
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch

SILENCE = 2.0
"""Seconds without speech."""
SETTLED = 5
"""Frames after speech stops from which the mouth is looked at, and before it begins again."""


def check(seconds: float, steps: int, stride: int, guidance: float, backbone: str, seed: int) -> dict[str, float]:
    from fedtalk.data.pixels import to_unit
    from fedtalk.data.synthtalk import Speaker, make_clip
    from fedtalk.encoders.identity import IdentityEncoder
    from fedtalk.encoders.mouth_probe import MouthProbe
    from fedtalk.encoders.speech import stream_windows
    from fedtalk.talker.pose import swaying_eyes
    from fedtalk.talker.production.generate import load_talker
    from fedtalk.talker.production.speech import Speech

    talker = load_talker(backbone=backbone, device="cpu").talker
    talker.guidance, talker.sampling_steps, talker.stride = guidance, steps, stride
    size = talker.backbone.architecture.size
    person = Speaker.draw(0, "public", seed)
    clip = make_clip(person, 0, 100, size)
    audio = np.resize(clip.audio, round(seconds * 25) * 640)
    quiet = slice(len(audio) // 1280, len(audio) // 1280 + round(SILENCE * 25))
    audio[quiet.start * 640 : quiet.stop * 640] = 0
    speech = Speech.read(audio)
    reference = clip.reference(0)
    eyes = swaying_eyes(reference.eyes, speech.frames, seed)
    windows = stream_windows(talker.backbone.speech, speech.by_frame(), speech.level)
    faces = talker.generation.portrait_faces(eyes, reference, windows, seed)
    frames = torch.stack(list(faces))
    encoder = IdentityEncoder.shipped().eval()
    with torch.no_grad():
        own = encoder(to_unit(torch.from_numpy(reference.frame).permute(2, 0, 1)[None]))
        first, last = (float((encoder(to_unit(part)) @ own.T).mean()) for part in (frames[:125], frames[-125:]))
    change = frames.float().diff(dim=0).abs().mean((1, 2, 3)).numpy()
    begins = np.arange(1, len(frames)) % stride == 0
    mouth = eyes.mean(1) + (clip.mouth[0] - reference.eyes.mean(0))
    pictures = frames.permute(0, 2, 3, 1).numpy()
    opening = MouthProbe.shipped().measure(pictures, mouth.astype(np.float32), eyes)
    silent = np.zeros(len(frames), bool)
    silent[quiet.start + SETTLED : quiet.stop - SETTLED] = True
    spoken = np.ones(len(frames), bool)
    spoken[quiet] = False
    return {
        "frames": len(frames), "expected_frames": round(seconds * 25),
        "identity_first": round(first, 4), "identity_last": round(last, 4),
        "seam": round(float(change[begins].mean() / change[~begins].mean()), 4),
        "open_in_silence": round(float(opening[silent].mean()), 4), "open_in_speech": round(float(opening[spoken].mean()), 4),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--backbone", default="shipped")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(check(**vars(options))))


if __name__ == "__main__":
    main()
