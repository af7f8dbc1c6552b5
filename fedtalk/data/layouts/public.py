"""Public data sets as they lie on disk: who is a client, what their names say, and what of them can't be used."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from fedtalk.data.layouts.tree import Source, Sources, is_video, nothing_found, walk

Reader = Callable[[Path, str], "Source | str | None"]
"""Takes a file and its path below the raw folder; gives a source, a reason to leave it out, or None for companions."""


GRID_WORDS = ("command", "colour", "preposition", "letter", "digit", "adverb")
"""What the six letters of a GRID name stand for."""


def grid_layout(raw: Path) -> Sources:
    """GRID: folders ``s1`` to ``s34`` of ``.mpg`` files; the sentence is coded in the name (Cooke et al. 2006)."""

    def read(path: Path, name: str) -> Source | str | None:
        match = re.fullmatch(r"(s\d+)/(.+)", name)
        if not match or not is_video(path):
            return None if path.suffix == ".align" else "not a video of a speaker's folder s1 ... s34"
        word = re.fullmatch(r"([a-z])([a-z])([a-z])([a-z])([\dzn])([a-z])", path.stem)
        keys = (
            dict(zip(("command", "colour", "preposition", "letter", "digit", "adverb"), word.groups(), strict=True))
            if word
            else {}
        )
        return Source(match[1], path, match[2], keys=keys)

    return _read(raw, read, "GRID's tree s1/*.mpg ... s34/*.mpg")


def lrs3_layout(raw: Path) -> Sources:
    """LRS3: ``{pretrain,trainval,test}/<talk>/<00001>.mp4`` with a text beside each; a talk is a client."""

    def read(path: Path, name: str) -> Source | str | None:
        match = re.fullmatch(r"(?:.*/)?(pretrain|trainval|test)/([^/]+)/([^/]+)", name)
        if not match or not is_video(path):
            return None if path.suffix == ".txt" else "not a video of pretrain, trainval or test"
        return Source(match[2], path, f"{match[1]}/{match[3]}", keys={"split": match[1], "talk": match[2]})

    return _read(raw, read, "LRS3's tree {pretrain,trainval,test}/TALK/00001.mp4")


def hdtf_layout(raw: Path) -> Sources:
    """HDTF: clips ``RD_Radio11_0.mp4`` or ``Radio11_000.mp4``; both spellings name the same clip of the same person."""

    def read(path: Path, name: str) -> Source | str | None:
        match = re.fullmatch(r"(?:(RD|WDA|WRA)_)?([A-Za-z][A-Za-z.'-]*?)(\d*)_(\d+)", path.stem)
        if not match or not is_video(path):
            return (
                None
                if path.suffix in (".txt", ".json")
                else "not named as HDTF's clips are, RD_Radio11_0.mp4 or Radio11_000.mp4"
            )
        group, person, video, clip = match.groups()
        if person == "Radio":  # these are numbered speakers, the others numbered videos of one speaker
            person, video = f"Radio{video}", ""
        keys = {"video": video, "cut": str(int(clip)), **({"group": group} if group else {})}
        return Source(person, path, f"{person}{video}_{int(clip):03d}.mp4", keys=keys)

    return _read(raw, read, "HDTF's clips RD_Radio11_0.mp4 or Radio11_000.mp4 in one folder")


def voxceleb2_layout(raw: Path) -> Sources:
    """VoxCeleb2: ``{dev,test}/mp4/<id>/<video>/<00001>.mp4`` without sound, ``{dev,test}/aac/...m4a`` with it."""

    def read(path: Path, name: str) -> Source | str | None:
        match = re.fullmatch(r"(?:.*/)?mp4/(id\d+)/([^/]+)/([^/]+)\.mp4", name)
        if not match:
            companion = path.suffix in (".m4a", ".txt", ".csv")
            return None if companion else "not at mp4/ID/VIDEO/00001.mp4 below dev or test"
        person, video, number = match.groups()
        base = path.parents[3]
        sound = base / "aac" / person / video / f"{number}.m4a"
        keys = {"video": video, **({"split": base.name} if base.name in ("dev", "test") else {})}
        return Source(person, path, f"{video}/{number}.mp4", sound if sound.is_file() else None, keys)

    return _read(raw, read, "VoxCeleb2's tree {dev,test}/mp4/id00012/VIDEO/00001.mp4 with {dev,test}/aac/.../00001.m4a")


RAVDESS_EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


def ravdess_layout(raw: Path) -> Sources:
    """RAVDESS: ``Actor_01..24/MM-VC-EE-II-SS-RR-AA.mp4``; MM 01 has picture and sound, 02 no sound, 03 no picture."""

    def read(path: Path, name: str) -> Source | str | None:
        match = re.fullmatch(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)", path.stem)
        if not match:
            return "not named as RAVDESS's files are, 01-01-03-01-02-01-07.mp4"
        kind, channel, emotion, intensity, statement, repetition, actor = match.groups()
        if kind != "01" or not is_video(path):
            return {"02": "video only (02), no sound", "03": "sound only (03), no picture"}.get(kind, "not a video")
        number = int(emotion)
        keys = {
            "channel": "song" if channel == "02" else "speech",
            "emotion": RAVDESS_EMOTIONS[number - 1] if 1 <= number <= 8 else emotion,
            "intensity": "strong" if intensity == "02" else "normal",
            "statement": statement, "repetition": repetition,
        }  # fmt: skip
        return Source(f"Actor_{actor}", path, path.name, keys=keys)

    return _read(raw, read, "RAVDESS's tree Actor_01/01-01-03-01-02-01-01.mp4 ...")


def cremad_layout(raw: Path) -> Sources:
    """CREMA-D: ``VideoFlash/1001_DFA_ANG_XX.flv``, and ``AudioWAV/*.wav`` where the video has no sound track."""

    def read(path: Path, name: str) -> Source | str | None:
        match = re.fullmatch(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})", path.stem)
        if not match or not is_video(path):
            companion = path.suffix.lower() in (".wav", ".mp3", ".csv", ".txt", ".md", ".r")
            return None if companion else "not named as CREMA-D's videos are, 1001_DFA_ANG_XX.flv"
        sound = path.parent.parent / "AudioWAV" / f"{path.stem}.wav"
        keys = dict(zip(("sentence", "emotion", "level"), match.groups()[1:], strict=True))
        return Source(match[1], path, path.name, sound if sound.is_file() else None, keys)

    return _read(raw, read, "CREMA-D's tree VideoFlash/1001_DFA_ANG_XX.flv and AudioWAV/1001_DFA_ANG_XX.wav")


LAYOUTS: Mapping[str, Callable[[Path], Sources]] = {
    "cremad": cremad_layout,
    "grid": grid_layout,
    "hdtf": hdtf_layout,
    "lrs3": lrs3_layout,
    "ravdess": ravdess_layout,
    "voxceleb2": voxceleb2_layout,
}
"""Public sets by name."""


def _read(raw: Path, read: Reader, tree: str) -> Sources:
    files, others = walk(raw)
    videos: dict[tuple[str, str], Source] = {}
    for path, name in files:
        found = read(path, name)
        if isinstance(found, str):
            others.append((name, found))
        elif found is not None:
            first = videos.setdefault((found.person, found.name), found)
            if first is not found:
                others.append((name, f"the same clip as {first.path.name}, under another name"))
    if not videos:
        raise nothing_found(raw, tree, f"{len(files)} files, none of them there")
    ordered = sorted(videos.values(), key=lambda source: (_natural(source.person), source.name))
    return Sources(ordered, sorted(others), list(dict.fromkeys(source.person for source in ordered)))


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts s2 before s10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
