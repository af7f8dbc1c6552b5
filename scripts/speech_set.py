"""Makes what configs/speech.yaml learns from: disturbed speech, a teacher's features of it, and lips where they were seen.

    python3 -m venv TEACHER && TEACHER/bin/pip install onnxruntime onnx numpy scipy
    pip download --no-deps pipecat-ai==1.14.0 && unzip -d PIPECAT pipecat_ai-*.whl
    TEACHER/bin/python scripts/speech_set.py PIPECAT CLIENTS TRACKS OUT --left_out m3 s10 w2 w3 --sounds runs/sounds/*

The teacher is layer 2 of the Whisper-tiny encoder inside smart-turn-v3.2 (wheel pipecat-ai 1.14, BSD-2); CLIENTS are clips of
`fedtalk prepare`, TRACKS what scripts/mouth_tracks.py read in them; the sounds are those of scripts/speech_sounds.py.

The teacher knows where in its window a sound is: more than half of its features' variance is their place. So a sound is
heard at `PLACES` places, the mean feature of each place is taken off, and what remains is averaged.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import wave
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from scipy.signal import fftconvolve, lfilter, resample_poly

RATE, FRAME, SECONDS = 16_000, 640, 8
COUNT = RATE * SECONDS
COMPONENTS = 128
PLACES = 3
"""Turns of a window, by a third of it each, over which the teacher's features are averaged."""
FIRST = 60
"""Windows from which the mean feature of each place is taken."""
MOST = 24
"""Windows of one voice at most, spread over it."""


class Teacher:
    """Features (400, 384) of eight seconds of sound."""

    def __init__(self, wheel: Path) -> None:
        folder = wheel / "pipecat" / "audio" / "turn" / "smart_turn"
        spec = importlib.util.spec_from_file_location("whisper_features", folder / "_whisper_features.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._mel = module.compute_whisper_log_mel_features
        model = onnx.load(folder / "data" / "smart-turn-v3.2-cpu.onnx")
        model.graph.output.append(onnx.helper.make_tensor_value_info("layer_norm_4", onnx.TensorProto.FLOAT, None))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def settle(self, sounds: list[np.ndarray]) -> None:
        """Learn the mean feature of each place."""
        self._place = np.mean([features for sound in sounds for features in self._turned(sound)], 0)

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        turn = COUNT // PLACES // FRAME * 2
        features = [np.roll(row - self._place, -turn * i, 0) for i, row in enumerate(self._turned(sound))]
        return np.mean(features, 0).astype(np.float32)

    def _turned(self, sound: np.ndarray) -> list[np.ndarray]:
        name, turn = self._session.get_inputs()[0].name, COUNT // PLACES // FRAME * FRAME
        turned = (np.roll(sound, turn * i).astype(np.float32) for i in range(PLACES))
        return [self._session.run(["layer_norm_4"], {name: self._mel(one)[None]})[0][0] for one in turned]


def read_wave(path: Path) -> np.ndarray:
    with wave.open(str(path)) as stream:
        rate, channels = stream.getframerate(), stream.getnchannels()
        sound = np.frombuffer(stream.readframes(stream.getnframes()), np.int16).astype(np.float32)[::channels] / 32768
    common = math.gcd(rate, RATE)
    return sound if rate == RATE else resample_poly(sound, RATE // common, rate // common).astype(np.float32)


def level(sound: np.ndarray) -> np.ndarray:
    return 0.1 * sound / (np.sqrt(np.square(sound).mean()) + 1e-6)


def disturbed(sound: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Reverberation, tone, band and noise, each in a share of the cases."""
    made = sound
    if generator.random() < 0.35:
        length = int(RATE * generator.uniform(0.1, 0.5))
        room = generator.standard_normal(length) * np.exp(-6 * np.arange(length) / length)
        room[0] += generator.uniform(4, 15)
        made = fftconvolve(made, room / np.sqrt(np.square(room).sum()))[: len(sound)]
    if generator.random() < 0.4:
        made = lfilter([1, generator.uniform(-0.6, 0.6)], [1], made)
    if generator.random() < 0.25:
        band = int(generator.choice([8, 10, 12]))
        made = resample_poly(resample_poly(made, band, 16), 16, band)[: len(sound)]
    if generator.random() < 0.6:
        noise = generator.standard_normal(len(sound))
        if generator.random() < 0.5:
            noise = lfilter([1], [1, -generator.uniform(0.5, 0.97)], noise)
        noise *= np.sqrt(np.square(made).mean() / np.square(noise).mean())
        made = made + noise * 10 ** (-generator.uniform(3, 30) / 20)
    return level(made)


def faster(sound: np.ndarray, lips: np.ndarray | None, factor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sound played ``factor`` times as fast, its lips (F, 3), and where they are known (F,)."""
    made = np.interp(np.arange(int(len(sound) / factor)) * factor, np.arange(len(sound)), sound)
    at = (np.arange(len(made) // FRAME) + 0.5) * factor - 0.5
    if lips is None:
        return made, np.zeros((len(at), 3)), np.zeros(len(at))
    columns = [np.interp(at, np.arange(len(lips)), column) for column in lips.T]
    return made, np.stack(columns, 1), (at <= len(lips) - 1).astype(float)


def seen_lips(path: Path) -> np.ndarray:
    with np.load(path) as stored:
        lips = np.stack([stored["opening"], stored["width"], stored["jaw"]], 1)
    lips[:, 1:] -= np.median(lips[:, 1:], 0)
    return lips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("wheel", "clients", "tracks", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--left_out", nargs="*", default=[])
    parser.add_argument("--sounds", nargs="*", type=Path, default=[])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    generator, teacher = np.random.default_rng(0), Teacher(arguments.wheel)
    items: list[tuple[str, np.ndarray, np.ndarray | None]] = []
    held: list[tuple[str, np.ndarray, np.ndarray]] = []
    for path in sorted(arguments.clients.glob("[!.]*/*.npz")):
        with np.load(path) as stored:
            sound = stored["audio"].astype(np.float32) / 32767
        lips = seen_lips(arguments.tracks / path.parent.name / path.name)
        if path.parent.name in arguments.left_out:
            held.append((f"{path.parent.name}-{path.stem}", sound, lips))
        else:
            items.append((path.parent.name, sound, lips))
    for path in arguments.sounds:
        if path.suffix == ".npz":
            with np.load(path) as stored:
                items.append(("synthtalk", stored["audio"].astype(np.float32), stored["lips"]))
        else:
            sound = read_wave(path)
            starts = range(0, len(sound) - COUNT // 2, COUNT)
            step = max(1, -(-len(starts) // MOST))
            items.extend((path.stem, sound[i : i + COUNT], None) for i in starts[::step])
    people = [name for name, _, lips in items if lips is not None]
    plan = [
        index for index, (name, _, lips) in enumerate(items)
        for _ in range(1 if lips is None or name == "synthtalk" else int(np.clip(60 // people.count(name), 2, 24)))
    ]  # fmt: skip
    generator.shuffle(plan)
    drawn: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    while plan:
        clean, lips, seen = np.zeros(COUNT), np.zeros((COUNT // FRAME, 3)), np.zeros(COUNT // FRAME)
        at = int(generator.integers(20))
        while plan and at < COUNT // FRAME - 25:
            _, sound, known = items[plan.pop()]
            # Lips keep their pace; where none were seen, voices may become a child's or a giant's.
            least, most = (0.75, 1.3) if known is None else (0.86, 1.16)
            made, track, there = faster(sound, known, generator.uniform(least, most))
            count = min(len(track), COUNT // FRAME - at)
            gain = 10 ** (generator.uniform(-4, 4) / 20)
            clean[at * FRAME : (at + count) * FRAME] = gain * level(made)[: count * FRAME]
            lips[at : at + count], seen[at : at + count] = track[:count], there[:count]
            at += count + int(generator.integers(8))
        drawn.append((clean, lips, seen))
    teacher.settle([clean for clean, _, _ in drawn[:FIRST]])
    print(f"{len(drawn)} windows", flush=True)
    windows = []
    for clean, lips, seen in drawn:
        windows.append((disturbed(clean, generator).astype(np.float16), teacher(clean), lips, seen))
        if len(windows) % 100 == 0:
            print(f"heard {len(windows)}", flush=True)
    rows = np.concatenate([features[::7] for _, features, _, _ in windows]).astype(np.float64)
    average = rows.mean(0)
    _, spread, axes = np.linalg.svd(rows - average, full_matrices=False)
    spread = spread / np.sqrt(len(rows))
    # Half way to whitening, see fedtalk.encoders.speech_module.
    project = axes[:COMPONENTS].T / np.sqrt(spread * spread[0])[:COMPONENTS]
    for number, (sound, features, lips, seen) in enumerate(windows):
        save(arguments.out / f"train-{number:04d}.npz", sound, (features - average) @ project, lips, seen)
    for name, sound, lips in held:
        padded = np.zeros(COUNT, np.float32)
        padded[: len(sound)] = level(sound)[:COUNT]
        features = (teacher(padded)[: 2 * len(lips)] - average) @ project
        save(arguments.out / f"held-{name}.npz", level(sound), features, lips, np.ones(len(lips)))


def save(path: Path, sound: np.ndarray, teacher: np.ndarray, lips: np.ndarray, seen: np.ndarray) -> None:
    np.savez(
        path, audio=sound.astype(np.float16), teacher=teacher.astype(np.float16),
        lips=lips.astype(np.float32), seen=seen.astype(np.float32),
    )  # fmt: skip


if __name__ == "__main__":
    main()
