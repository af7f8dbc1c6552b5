"""Prepared clients on disk as a data module: what `fedtalk prepare` wrote."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from fedtalk.checks import check_share
from fedtalk.data import consent as consents
from fedtalk.data.clip import FRAME_RATE, Clip
from fedtalk.data.division import Division
from fedtalk.data.faults import ALL_FAULTS, WRONG_PERSON, Fault, check_faults, faulty
from fedtalk.data.names import not_data, readable
from fedtalk.data.source import POOLED, ClipData, ClipSource
from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.randomness import numpy_generator

log = logging.getLogger("fedtalk")

SHORTEST = 9
"""Frames a clip must have: a window of 8 that the talker trains on, and one outside it for the reference."""
CHECKED = 64
"""Clients whose clips are opened at the start, to find a wrong setting before any work; and whose clips' list is kept."""


class FolderData(ClipData):
    """A clients folder: one folder a client, one ``.npz`` a clip. The end of every source file is held out.

    Of more than `CHECKED` clients the further ones are opened when they are drawn; one without enough clips then costs its
    own update.
    """

    def __init__(
        self,
        root: str,
        held_out_seconds: float = 1.0,
        size: int = 128,
        consent: Literal["warn", "strict"] = "warn",
        division: Division | None = None,
        unreliable: float = 0.0,
        faults: Sequence[Fault] = ALL_FAULTS,
        centralised: bool = False,
        seed: int = 0,
    ) -> None:
        """
        Args:
            root: clients folder made by `fedtalk prepare`.
            held_out_seconds: how much of the end of each source file is never trained on.
            size: height and width that the clips must have, in pixels.
            consent: what to do about people whose `fedtalk.data.consent` record is missing, empty or has ended: ``warn``, or
                ``strict``, which refuses. Those who took it back are left out in any case.
            division: who is a client and with which clips, where that isn't one folder each with all of them.
            unreliable: share of the clients, from the last one backwards, whose clips are made faulty.
            faults: what is wrong with the unreliable ones, in turn: ``flicker`` (the light), ``shifted_audio``, ``blurred``,
                ``wrong_person`` (strangers' clips).
            centralised: put everybody's clips into one client named ``public``, to compare with. Tables are still made of the
                people one by one.
            seed: of divisions and faults.

        Raises:
            ArtifactError: there is no such folder, or no client in it with clips of this size and length.
            ConfigurationError: a setting is out of its range; it names the key.
        """
        super().__init__()
        self.root, self.size = Path(root).expanduser(), size
        self._held_out_frames = round(held_out_seconds * FRAME_RATE)
        if self._held_out_frames < SHORTEST:
            raise ConfigurationError(
                f"data.held_out_seconds: expected at least {SHORTEST / FRAME_RATE} ({SHORTEST} frames), got {held_out_seconds}"
            )
        if not self.root.is_dir():
            raise ArtifactError(
                f"clients folder {self.root} does not exist; make it with `fedtalk prepare RAW_VIDEOS {self.root}`"
            )
        with os.scandir(self.root) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir() and not not_data(entry.name))
        odd = [readable(name) for name in folders if readable(name) != name]
        if odd:
            log.warning("left out, since their names are no UTF-8; rename their folders: %s", ", ".join(odd))
        clients = [name for name in folders if readable(name) == name and _clips_of(self.root / name)]
        self.revoked = [name for name in clients if consents.revoked(self.root / name)]
        self._clients = [name for name in clients if name not in self.revoked]
        if not self._clients:
            raise ArtifactError(
                f"clients folder {self.root} holds no client with clips; see its rejects.csv, if there is one"
            )
        if self.revoked:
            log.warning("left out, since they took consent back: %s", ", ".join(self.revoked))
        consents.require(self.root, self._clients, consent)
        self._clips = {name: partial(_clips_of, self.root / name) for name in self._clients}
        if division is not None:
            divided = division.divide(self.root, self._clients, seed)
            self._clients = list(divided)
            self._clips = {name: partial(list, paths) for name, paths in divided.items()}
        check_share("data", unreliable=unreliable)
        self._seed = seed
        count = len(self._clients)
        self._reliable = count - round(unreliable * count)
        turn = check_faults(faults)
        self._faults = {self._clients[i]: turn[(count - 1 - i) % len(turn)] for i in range(self._reliable, count)}
        if WRONG_PERSON in self._faults.values() and count < 2:
            raise ConfigurationError("data.unreliable: expected two clients or more to take a stranger from, got one")
        if centralised and POOLED in self._clients:
            raise ConfigurationError(
                f"data.centralised: its one client is named {POOLED!r}, and so is a client of {self.root}; rename that folder"
            )
        self._centralised = centralised
        self._opened: OrderedDict[str, tuple[list[ClipSource], list[ClipSource]]] = OrderedDict()
        for client in self._clients[:CHECKED]:
            self._split(client)

    @property
    def clients(self) -> list[str]:
        return [POOLED] if self._centralised else self._clients

    @property
    def unreliable_clients(self) -> list[str]:
        """Clients whose clips are made faulty."""
        return [] if self._centralised else list(self._faults)

    @property
    def evaluation_clients(self) -> list[str]:
        return self._clients[: self._reliable] or self._clients

    def training_clips(self, client: str) -> list[ClipSource]:
        return [clip for one in self._people(client) for clip in self._split(one)[0]]

    def held_out_clips(self, client: str) -> list[ClipSource]:
        return [clip for one in self._people(client) for clip in self._split(one)[1]]

    def consent_record(self, client: str) -> Path | None:
        path = self.root / client / consents.RECORD
        return path if path.is_file() else None

    def _people(self, client: str) -> list[str]:
        """Whose clips a client holds."""
        return self._clients if self._centralised and client == POOLED else [client]

    def _split(self, client: str) -> tuple[list[ClipSource], list[ClipSource]]:
        """A client's training and held-out clips; the latest clients' stay in memory."""
        if client not in self._opened:
            training, held_out = self._divide(client)
            if not training or not held_out:
                raise ArtifactError(
                    f"client {client} has no {'training' if held_out else 'held-out'} clips: its videos are too short for "
                    f"held_out_seconds={self._held_out_frames / FRAME_RATE:g}; add longer videos or hold out less"
                )
            self._opened[client] = training, held_out
            if len(self._opened) > CHECKED:
                self._opened.popitem(last=False)
        return self._opened[client]

    def _paths(self, client: str) -> list[Path]:
        """A client's files; where its fault is that, strangers' in their place, one after the other: a mislabelled folder."""
        own = self._clips[client]()
        if self._faults.get(client) != WRONG_PERSON:
            return own
        generator = numpy_generator(self._seed, "stranger", client)
        others = [self._clips[str(name)]() for name in generator.permutation([n for n in self._clients if n != client])]
        rounds = -(-len(own) // len(others))
        shuffled = [[files[int(i)] for i in generator.permutation(len(files))] for files in others]
        in_turn = [files[turn] for turn in range(rounds) for files in shuffled if turn < len(files)]
        return in_turn[: len(own)]

    def _divide(self, client: str) -> tuple[list[ClipSource], list[ClipSource]]:
        """Cut each source file's clips at ``held_out_seconds`` before its end."""
        by_source: dict[str, list[tuple[float, Path, int]]] = {}
        for path in self._paths(client):
            shape, info = Clip.facts(path)
            if shape[1] != self.size:
                raise ArtifactError(
                    f"clip {path} has {shape[1]} px frames, data.size is {self.size}; "
                    f"prepare again with --size {self.size}"
                )
            entry = (float(info.get("start", 0.0)), path, shape[0])  # type: ignore[arg-type]
            by_source.setdefault(str(info.get("source", path.name)), []).append(entry)
        training: list[ClipSource] = []
        held_out: list[ClipSource] = []
        for entries in by_source.values():
            entries.sort()
            end = max(start + length / FRAME_RATE for start, _, length in entries)
            cut = end - self._held_out_frames / FRAME_RATE
            for start, path, length in entries:
                first = int(np.clip(round((cut - start) * FRAME_RATE), 0, length))
                for parts, low, high in ((training, 0, first), (held_out, first, length)):
                    if high - low >= SHORTEST:
                        stat = path.stat()
                        fault = self._faults.get(client, WRONG_PERSON)
                        fault = "" if fault == WRONG_PERSON else fault  # these clips are whole, but somebody else's
                        key = f"{path.resolve()}/{stat.st_mtime_ns}/{stat.st_size}/{low}/{high}/{fault}/{self._seed}"
                        parts.append(ClipSource(key, partial(self._load, path, low, high, fault)))
        return training, held_out

    def _load(self, path: Path, low: int, high: int, fault: str) -> Clip:
        clip = Clip.load(path).window(low, high - low)
        return faulty(clip, fault, numpy_generator(self._seed, "fault", path.name, low)) if fault else clip


def _clips_of(folder: Path) -> list[Path]:
    """A client's clips, without what other programs and killed ones left."""
    return sorted(path for path in folder.glob("*.npz") if not not_data(path.name))
