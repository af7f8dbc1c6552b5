"""What of a measurement is looked at: the clips that came out worst, as videos and on a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fedtalk.data.provenance import EDITED, GENERATED, Provenance
from fedtalk.data.video_writer import VideoWriter
from fedtalk.evaluation.contact_sheet import contact_sheet
from fedtalk.evaluation.controls import Case
from fedtalk.evaluation.reading import Reading
from fedtalk.talker.module import Talker

BEST = ("personal", "trained")
"""Rows that may be a client's own talker, the first one that it has."""
WORST_BY = "psnr_mouth"
DUB, SWAPPED, PORTRAIT = "truth-left-dubbed-right", "speaking-for-another", "portrait"
"""What follows a client's name in the name of a video."""


def worst_clips(scores: Mapping[str, Mapping[int, Mapping[str, float]]], clients: Sequence[str]) -> list[int]:
    """Numbers of clips, each client's worst one, the worst client first, by the PSNR of the mouth of its own talker.

    Args:
        scores: of the dub task, by row and number of the clip.
        clients: whose each clip is.

    >>> worst_clips({"trained": {0: {"psnr_mouth": 20}, 1: {"psnr_mouth": 18}, 2: {"psnr_mouth": 19}}}, ["anna", "anna", "bert"])
    [1, 2]
    """
    worth = {
        number: next(scores[row][number][WORST_BY] for row in BEST if number in scores.get(row, {}))
        for number in range(len(clients))
    }
    worst: dict[str, int] = {}
    for number in sorted(worth, key=lambda number: worth[number]):
        worst.setdefault(clients[number], number)
    return list(worst.values())


def show(
    cases: Sequence[Case],
    numbers: Sequence[int],
    readings: Mapping[str, Mapping[str, Mapping[int, Reading]]],
    talker: Talker,
    run_dir: Path,
) -> None:
    """Write ``contact_sheet.png`` and ``videos/`` of some clips; videos that an earlier measurement wrote are removed.

    Args:
        cases: all of them.
        numbers: which are shown, in this order.
        readings: by task, row and number.
        talker: named in the videos' provenance.
        run_dir: the run's folder.
    """
    for kind in (DUB, SWAPPED, PORTRAIT):
        for old in (run_dir / "videos").glob(f"*-{kind}.mp4"):
            old.unlink()
    sheet = []
    for number in numbers:
        case = cases[number]
        block = [("truth", case.clip.frames)]
        for task, by_row in readings.items():
            made = {name: one[number] for name, one in by_row.items() if number in one}
            block += _rows(task, made)
            _write_videos(run_dir / "videos", case, task, made, talker)
        sheet.append((case.client, block))
    contact_sheet(sheet, run_dir / "contact_sheet.png")


def _rows(task: str, made: Mapping[str, Reading]) -> list[tuple[str, np.ndarray]]:
    best = next(name for name in BEST if name in made)
    controls = ("swapped_audio", "silence", "copy_reference") if task == "dub" else ()
    return [(f"{task}, {best}", made[best].frames)] + [
        (name.replace("_", " "), made[name].frames) for name in controls if name in made
    ]


def _write_videos(folder: Path, case: Case, task: str, made: Mapping[str, Reading], talker: Talker) -> None:
    name = next(name for name in BEST if name in made)
    best, provenance = made[name], provenance_of(talker, task, name)
    if task == "portrait":
        write_video(folder / f"{case.client}-{PORTRAIT}.mp4", best.audio, best.frames, provenance)
        return
    beside = np.concatenate([case.clip.frames, best.frames], 2)
    write_video(folder / f"{case.client}-{DUB}.mp4", best.audio, beside, provenance)
    if (swapped := made.get("swapped_audio")) is not None:
        write_video(folder / f"{case.client}-{SWAPPED}.mp4", swapped.audio, swapped.frames, provenance)


def provenance_of(talker: Talker, task: str, adapter: str) -> Provenance:
    """Of a video of a task that was made with this adapter."""
    return Provenance(GENERATED if task == "portrait" else EDITED, talker.fingerprint(), {adapter: 1.0})


def write_video(path: Path, audio: np.ndarray, frames: np.ndarray, provenance: Provenance) -> None:
    """(F, H, W, 3) uint8 and their sound as an mp4, small frames enlarged to at least 256 pixels."""
    with VideoWriter(path, audio=audio, scale=max(1, 256 // frames.shape[1]), provenance=provenance) as writer:
        for frame in frames:
            writer.write(frame)
