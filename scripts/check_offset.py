"""How often the check of sound against lips is wrong: false alarms on speech in step, and delays that it finds.

CLIENTS is what `fedtalk prepare RAW CLIENTS` made; the followed faces in it are used as they are. Each video is judged alone, and
DRAWS times some of a person's videos are joined to SECONDS and judged, in step and with their sound moved. Prints, for each
length and each move, the shares that would be rejected and that would only be told of; for moves within the tolerance of 160 ms
both are false alarms.

    python scripts/check_offset.py RAW CLIENTS --seconds 20 40 60 --json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from fedtalk.data.clip import SAMPLE_RATE, SAMPLES_PER_FRAME
from fedtalk.data.layouts import find_sources
from fedtalk.data.media import read_audio
from fedtalk.data.prepare.record import FOLDER, key_of
from fedtalk.data.speech import estimate_offset, offset_note, offset_problem
from fedtalk.errors import MediaError

MOVES = (0.0, 0.08, -0.08, 0.2, -0.2, 0.3, -0.3, 0.5, -0.5)
"""Seconds by which the sound is put later."""


def read(raw: Path, clients: Path, layout: str) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """By person: (F,) motion of the mouth and (640 F,) sound of each video."""
    people: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for source in find_sources(raw, layout).videos:
        path = clients / FOLDER / f"{key_of(source)}.npz"
        try:
            sound = read_audio(source.sound or source.path)
            with np.load(path) as stored:
                motion = stored["motion"]
        except (MediaError, FileNotFoundError):
            continue
        wanted = len(motion) * SAMPLES_PER_FRAME
        people.setdefault(source.person, []).append((motion, np.pad(sound, (0, max(0, wanted - len(sound))))[:wanted]))
    return people


def judged(motion: np.ndarray, sound: np.ndarray, move: float) -> tuple[bool, bool]:
    """Whether a video with its sound moved would be rejected, or else told of."""
    shift = round(move * SAMPLE_RATE)
    moved = np.pad(sound, (max(0, shift), max(0, -shift)))[max(0, -shift) :][: len(sound)]
    energy = np.sqrt((moved.reshape(-1, SAMPLES_PER_FRAME) ** 2).mean(1))
    offset = estimate_offset(motion, energy)
    problem = offset_problem(offset) is not None
    return problem, not problem and offset_note(offset) is not None


def shares(verdicts: list[tuple[bool, bool]]) -> list[float]:
    """Of those rejected and of those told of."""
    return [round(float(share), 4) for share in np.mean(verdicts, axis=0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path)
    parser.add_argument("clients", type=Path)
    parser.add_argument("--layout", default="folder")
    parser.add_argument("--seconds", type=float, nargs="+", default=(20, 40, 60))
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    people = read(options.raw, options.clients, options.layout)
    alone = [pair for videos in people.values() for pair in videos]
    result: dict[str, object] = {
        "people": len(people), "videos": len(alone),
        "alone": {str(move): shares([judged(*pair, move) for pair in alone]) for move in MOVES},
    }  # fmt: skip
    generator = np.random.default_rng(options.seed)
    for seconds in options.seconds:
        long_enough = [videos for videos in people.values() if sum(len(motion) for motion, _ in videos) >= seconds * 25]
        verdicts: dict[float, list[tuple[bool, bool]]] = {move: [] for move in MOVES}
        for draw in range(options.draws):
            videos = long_enough[draw % len(long_enough)]
            order, motion, sound = generator.permutation(len(videos)), [], []
            while sum(map(len, motion)) < seconds * 25:
                one = videos[order[len(motion)]]
                motion.append(one[0])
                sound.append(one[1])
            for move in MOVES:
                verdicts[move].append(judged(np.concatenate(motion), np.concatenate(sound), move))
        result[f"{seconds:g} s"] = {
            "people": len(long_enough), **{str(move): shares(both) for move, both in verdicts.items()}
        }  # fmt: skip
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
