"""What shipped networks learn from: real people whose clips are public, and public SynthTalk speakers, as one client."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fedtalk.checks import check_least
from fedtalk.data.clip import Clip
from fedtalk.data.pieces import piece_of_person, piece_of_speaker
from fedtalk.data.source import CentralData, ClipSource
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.randomness import numpy_generator


class PublicData(CentralData):
    """Centralised training on a clients folder of real people together with SynthTalk; whole people are held out.

    Held-out clips are those of the people in ``left_out`` and of further SynthTalk speakers.
    """

    def __init__(
        self,
        people: str | None = None,
        left_out: list[str] | None = None,
        most_clips: int = 40,
        speakers: int = 60,
        frames: int = 24,
        size: int = 128,
        pieces: int = 0,
        seed: int = 0,
    ) -> None:
        """
        Args:
            people: clients folder of `fedtalk prepare`; None for SynthTalk alone.
            left_out: people in it that are never trained on.
            most_clips: clips taken of one person at most, spread evenly over all there are.
            speakers: public SynthTalk speakers, one clip each, and a tenth as many held out.
            frames: length of a SynthTalk clip in video frames.
            size: height and width of a frame in pixels.
            pieces: train on so many changed pieces of ``frames`` frames (see `fedtalk.data.pieces`) instead of clips as they
                are; a person's share grows with the root of how many clips there are, SynthTalk speakers give one each.
            seed: of the SynthTalk population and of the pieces.
        """
        super().__init__()
        check_least("data", 1, most_clips=most_clips)
        check_least("data", 0, speakers=speakers)
        check_least("data", 8, frames=frames)
        self.size = size
        if people is not None:
            self._add_people(Path(people), left_out or [], most_clips, pieces, frames, seed)
        elif left_out:
            raise ConfigurationError("data.left_out: expected data.people too, the folder these people are in")
        further = max(1, speakers // 10) if speakers else 0
        for index in range(speakers + further):
            speaker = Speaker.draw(seed, "public", index)
            key = f"synthtalk/{seed}/{speaker.name}/None/0/{frames}/{size}"
            if index >= speakers:
                self._held_out.append(ClipSource(key, partial(make_clip, speaker, 0, frames, size)))
            elif pieces:
                self._training.append(ClipSource(f"piece/{key}", partial(_of_speaker, speaker, frames, size, seed)))
            else:
                self._training.append(ClipSource(key, partial(make_clip, speaker, 0, frames, size)))
        if not self._training or not self._held_out:
            raise ConfigurationError(
                f"data: expected clips to train on and clips held out, got {len(self._training)} and "
                f"{len(self._held_out)}; name people to leave out, or take SynthTalk speakers"
            )

    def _add_people(self, root: Path, left_out: list[str], most: int, pieces: int, frames: int, seed: int) -> None:
        folders = {path.name: sorted(path.glob("*.npz")) for path in sorted(root.glob("[!.]*/"))}
        missing = sorted(set(left_out) - set(folders))
        if not folders or missing:
            raise ArtifactError(
                f"people {root}: expected one folder a person, as `fedtalk prepare RAW {root} --size {self.size}` makes, "
                f"got {len(folders)} folders" + (f", none of them {missing}" if missing else "")
            )
        roots = {name: len(paths) ** 0.5 for name, paths in folders.items() if name not in left_out}
        for name, paths in folders.items():
            chosen = [paths[i * len(paths) // min(most, len(paths))] for i in range(min(most, len(paths)))]
            if name in left_out:
                self._held_out.extend(self._source(path) for path in chosen)
            elif not pieces:
                self._training.extend(self._source(path) for path in chosen)
            else:
                made = "/".join(f"{path.stat().st_mtime_ns}" for path in chosen)
                for number in range(round(pieces * roots[name] / sum(roots.values()))):
                    key = f"piece/{root.resolve()}/{name}/{number}/{frames}/{self.size}/{seed}/{made}"
                    load = partial(_of_person, name, number, tuple(chosen), frames, self.size, seed)
                    self._training.append(ClipSource(key, load))

    def _source(self, path: Path) -> ClipSource:
        stat = path.stat()
        return ClipSource(f"{path.resolve()}/{stat.st_mtime_ns}/{stat.st_size}", partial(self._load, path))

    def _load(self, path: Path) -> Clip:
        clip = Clip.load(path)
        if clip.size != self.size:
            raise ArtifactError(
                f"clip {path} has {clip.size} px frames, data.size is {self.size}; prepare again with --size {self.size}"
            )
        return clip


def _of_person(name: str, number: int, paths: tuple[Path, ...], frames: int, size: int, seed: int) -> Clip:
    return piece_of_person(paths, frames, size, numpy_generator(seed, "piece", name, number))


def _of_speaker(speaker: Speaker, frames: int, size: int, seed: int) -> Clip:
    return piece_of_speaker(speaker, frames, size, numpy_generator(seed, "piece", speaker.name))
