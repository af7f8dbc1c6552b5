"""What a talker does with real people who were never trained on, read by an independent face mesh.

    python scripts/people_table.py CLIENTS --people m3 w2 w3 s10 --mesh MESH/bin/python [--backbone FOLDER] [--json OUT.json]

CLIENTS is a folder of `fedtalk prepare RAW CLIENTS --size 128 --clip_seconds null`; MESH an environment with mediapipe (see
scripts/mouth_tracks.py). Identity needs FEDTALK_SFACE. Whole clips: each person's first clip is dubbed with its own speech and
with the next person's, and drawn as a portrait from its first frame. Controls: the truth, the reference moved to the eyes,
and the puppet alone. `learned` is as `fedtalk generate --video` makes it: with looks that the clip itself tells
(`fedtalk.talker.production.own_looks`); its mouth PSNR under its own speech would be of what taught it, so looks of the first
two seconds are measured on what comes after them. With --personal, an adapter learns from the same two seconds, and is used in
that way.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from fedtalk.data.clip import SAMPLES_PER_FRAME, Clip
from fedtalk.data.framing import align
from fedtalk.encoders.speech import heard_lips
from fedtalk.evaluation.recognisers import recogniser
from fedtalk.federation.checkpoint import load_checkpoint
from fedtalk.talker.adapters import Adapter
from fedtalk.talker.backbone import SHIPPED, Architecture
from fedtalk.talker.batches import surrounded
from fedtalk.talker.masks import lower_face
from fedtalk.talker.module import Talker
from fedtalk.talker.mouth_looks import MouthLooks
from fedtalk.talker.production.own_looks import EVERY, by_seconds
from fedtalk.talker.puppet import Puppet
from fedtalk.training.module import load_state

SKIPPED = 8
"""Frames at the start of a clip that its PSNR passes over."""
LEARNED = 50
"""Frames at the start of a clip that a personal adapter learns from."""


def stretched(audio: np.ndarray, frames: int) -> np.ndarray:
    """Speech cut or padded with silence to ``frames``."""
    count = frames * SAMPLES_PER_FRAME
    return np.pad(audio[:count], (0, max(0, count - len(audio)))).astype(np.float32)


def made(talker: Talker, clip: Clip, donor: Clip) -> dict[str, np.ndarray]:
    """Frames (F, H, W, 3) of each kind."""
    reference, other = clip.reference(0), stretched(donor.audio, len(clip))
    lips = heard_lips(torch.from_numpy(clip.audio)).numpy()
    hidden, _ = lower_face(clip.eyes, clip.size)
    frames = {
        "truth": clip.frames,
        "codec": talker.reconstruct(clip.frames),
        "moved": surrounded(align(reference.frame, reference.eyes, clip.eyes), clip.frames, hidden),
        "puppet": surrounded(Puppet(reference).moved(clip.eyes, lips[:, :2]), clip.frames, hidden),
        "dub": np.stack([frame.numpy() for frame in talker.dub(clip, reference)]),
        "swapped": np.stack([frame.numpy() for frame in talker.dub(clip, reference, audio=torch.from_numpy(other))]),
        "portrait": np.stack([frame.numpy() for frame in talker.portrait(torch.from_numpy(clip.audio), reference)]),
    }
    for name, audio, told in (
        ("learned", None, len(clip)), ("learned, swapped", torch.from_numpy(other), len(clip)), ("learned, 2 s", None, LEARNED),
    ):  # fmt: skip
        talker.looks = own_looks(clip, told)
        frames[name] = np.stack([frame.numpy() for frame in talker.dub(clip, reference, audio=audio)])
        talker.looks = None
    return {name: np.ascontiguousarray(value) for name, value in frames.items()}


def own_looks(clip: Clip, count: int) -> MouthLooks | None:
    """As `fedtalk generate --video` learns them, of a clip's first ``count`` frames."""
    seen = np.arange(0, count, EVERY)
    return by_seconds(clip.reference(0), seen, clip.frames[seen], clip.eyes[seen])


def personal(talker: Talker, clip: Clip, steps: int, rate: float) -> Talker:
    """A talker with an adapter trained on the clip's beginning."""
    with tempfile.TemporaryDirectory() as folder:
        talker.backbone.save(Path(folder))
        own = Talker(folder, adapter=Adapter(), sampling_steps=talker.sampling_steps)
    beginning = clip.window(0, LEARNED)
    own.looks = own.looks_of([own.prepare_clip(beginning)])
    prepared = [own.prepare_clip(beginning)]
    optimizer = torch.optim.AdamW(own.exchanged_parameters().values(), rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        own.training_step(own.draw_batch(prepared, 4, generator))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        falling.step()
    return own.eval()


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1]) if one.std() > 1e-6 and other.std() > 1e-6 else 0.0


def mouth_psnr(
    frames: np.ndarray, truth: np.ndarray, mouth: np.ndarray, eyes: np.ndarray, first: int = SKIPPED
) -> float:
    """dB in the square of one distance between the eyes around the mouth, of the mean error; the first frames, which are the
    reference or nearly so, are left out."""
    values = []
    for frame, true, (x, y), points in list(zip(frames, truth, mouth, eyes, strict=True))[first:]:
        half = int(np.linalg.norm(points[1] - points[0]) / 2)
        rows, columns = slice(int(y) - half, int(y) + half), slice(int(x) - half, int(x) + half)
        error = ((frame[rows, columns].astype(float) - true[rows, columns]) ** 2).mean()
        values.append(error)
    return float(-10 * np.log10(np.mean(values) / 255**2 + 1e-12))


def interval(values: dict[str, float]) -> tuple[float, float, float]:
    """Mean over people and its 95 % interval."""
    row, generator = np.array(list(values.values())), np.random.default_rng(0)
    low, high = np.percentile([generator.choice(row, len(row)).mean() for _ in range(5000)], [2.5, 97.5])
    return float(row.mean()), float(low), float(high)


def flicker(frames: np.ndarray) -> float:
    return float(np.abs(np.diff(frames.astype(np.float32), axis=0)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", type=Path)
    parser.add_argument("--people", nargs="+", required=True)
    parser.add_argument("--mesh", required=True, help="python with mediapipe")
    parser.add_argument("--backbone", default=SHIPPED)
    parser.add_argument("--codec", help="codec of a backbone in training, with --checkpoint")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint of configs/backbone.yaml")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--personal", type=int, default=0, help="steps of a personal adapter")
    parser.add_argument("--rate", type=float, default=1e-3, help="its learning rate")
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=Path, help="keep the frames here")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    options = {"guidance": arguments.guidance, "sampling_steps": arguments.steps}
    if arguments.codec:
        talker = Talker(architecture=Architecture(codec=arguments.codec), **options)
        if arguments.checkpoint:
            load_state(talker.exchanged_parameters(), load_checkpoint(arguments.checkpoint, talker)["server"]["state"])
    else:
        talker = Talker(arguments.backbone, **options)
    talker.eval()
    clips = {name: Clip.load(sorted((arguments.clients / name).glob("*.npz"))[0]) for name in arguments.people}
    names = list(clips)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.frames or Path(temporary)
        for index, name in enumerate(names):
            pictures = made(talker, clips[name], clips[names[(index + 1) % len(names)]])
            if arguments.personal:
                own = personal(talker, clips[name], arguments.personal, arguments.rate)
                own.looks = own_looks(clips[name], LEARNED) or own.looks
                dub = own.dub(clips[name], clips[name].reference(0))
                pictures["personal"] = np.stack([frame.numpy() for frame in dub])
            for kind, frames in pictures.items():
                path = folder / name / f"{kind}.npz"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.savez(path, frames=frames)
        paths = [str(path) for name in names for path in sorted((folder / name).glob("*.npz"))]
        script = Path(__file__).with_name("mouth_tracks.py")
        subprocess.run([arguments.mesh, str(script), f"{folder}/tracks", *paths], check=True, stderr=subprocess.DEVNULL)
        rows = {name: measured(folder, name, clips, names) for name in names}
    means = {key: float(np.mean([row[key] for row in rows.values()])) for key in next(iter(rows.values()))}
    table = {**rows, "mean": means}
    for key in means:
        print(f"{key:42s}" + "".join(f"{table[name][key]:9.2f}" for name in table))
    for key in (key for key in means if key.endswith("- moved")):
        mean, low, high = interval({name: row[key] for name, row in rows.items()})
        print(f"{key}: {mean:.2f}, 95 % interval over people [{low:.2f}, {high:.2f}]")
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1))


def measured(folder: Path, name: str, clips: dict[str, Clip], names: list[str]) -> dict[str, float]:
    """One person's numbers."""
    clip, donor = clips[name], names[(names.index(name) + 1) % len(names)]

    def frames(kind: str) -> np.ndarray:
        with np.load(folder / name / f"{kind}.npz") as stored:
            return stored["frames"]

    def track(person: str, kind: str, what: str = "opening") -> np.ndarray:
        with np.load(folder / "tracks" / person / f"{kind}.npz") as stored:
            return stored[what]

    truth = track(name, "truth")
    given = track(donor, "truth")
    count = min(len(truth), len(given))
    face = recogniser("sface")
    known = face.embed(clip.frames, clip.eyes, clip.mouth).mean(0)

    def identity(kind: str) -> float:
        return float((face.embed(frames(kind), clip.eyes, clip.mouth) @ (known / np.linalg.norm(known))).mean())

    def psnr_of(kind: str, first: int = SKIPPED) -> float:
        return mouth_psnr(frames(kind), clip.frames, clip.mouth, clip.eyes, first)

    psnr = {kind: psnr_of(kind) for kind in ("moved", "puppet", "dub")}
    moved, kinds = psnr_of("moved", LEARNED), ("dub", "learned, 2 s", "personal")
    later = {
        f"mouth PSNR after 2 s: {kind} - moved": psnr_of(kind, LEARNED) - moved
        for kind in kinds
        if (folder / name / f"{kind}.npz").exists()
    }
    heard = heard_lips(torch.from_numpy(clip.audio)).numpy()[:, 0]
    return {
        "own: heard": correlation(heard, truth),
        "own: puppet": correlation(track(name, "puppet"), truth),
        "own: dub": correlation(track(name, "dub"), truth),
        "own: dub, width": correlation(track(name, "dub", "width"), track(name, "truth", "width")),
        "own: learned": correlation(track(name, "learned"), truth),
        "own: learned, width": correlation(track(name, "learned", "width"), track(name, "truth", "width")),
        "own: portrait": correlation(track(name, "portrait"), truth),
        "swapped: donor": correlation(track(name, "swapped")[:count], given[:count]),
        "swapped: own": correlation(track(name, "swapped"), truth),
        "learned, swapped: donor": correlation(track(name, "learned, swapped")[:count], given[:count]),
        "learned, swapped: own": correlation(track(name, "learned, swapped"), truth),
        "amplitude of the opening": float(track(name, "dub").std() / truth.std()),
        "amplitude: learned": float(track(name, "learned").std() / truth.std()),
        "amplitude: learned, swapped / dub, swapped": float(
            track(name, "learned, swapped").std() / track(name, "swapped").std()
        ),
        "mouth PSNR: puppet - moved": psnr["puppet"] - psnr["moved"],
        "mouth PSNR: dub - moved": psnr["dub"] - psnr["moved"],
        "mouth PSNR: dub": psnr["dub"],
        "identity: codec": identity("codec"),
        "identity: dub": identity("dub"),
        "identity: learned, swapped": identity("learned, swapped"),
        "identity: portrait": identity("portrait"),
        "flicker: codec": flicker(frames("codec")) / flicker(clip.frames),
        "flicker: dub": flicker(frames("dub")) / flicker(clip.frames),
        "flicker: learned": flicker(frames("learned")) / flicker(clip.frames),
        "flicker: portrait": flicker(frames("portrait")) / flicker(clip.frames),
        "PSNR: codec": float(np.mean([-10 * np.log10(((a.astype(float) - b) ** 2).mean() / 255**2)
                                      for a, b in zip(frames("codec"), clip.frames, strict=True)])),
        **later,
    }  # fmt: skip


if __name__ == "__main__":
    main()
