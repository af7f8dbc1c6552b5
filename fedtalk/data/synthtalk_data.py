"""SynthTalk as a data module: the embedded default, nothing to download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fedtalk.checks import check_least, check_share
from fedtalk.data.faults import ALL_FAULTS, Fault, check_faults
from fedtalk.data.source import POOLED, ClipData, ClipSource
from fedtalk.data.synthtalk import Group, Speaker, make_clip
from fedtalk.errors import ConfigurationError


class SynthTalkData(ClipData):
    """Procedural speakers, each one client (or all of them one client, for centralised training)."""

    def __init__(
        self,
        speakers: int = 8,
        clips: int = 6,
        held_out: int = 2,
        frames: int = 40,
        size: int = 128,
        group: Group = "private",
        unreliable: float = 0.0,
        centralised: bool = False,
        first: int = 0,
        outsiders: int = 0,
        faults: Sequence[Fault] = ALL_FAULTS,
        seed: int | None = None,
    ) -> None:
        """
        Args:
            speakers: number of people.
            clips: training clips of each.
            held_out: further clips of each, never trained on.
            frames: length of a clip in video frames (25 a second).
            size: height and width of a frame in pixels.
            group: ``private`` (clients), ``public`` (backbone), or ``community``: clients who share what public people lack,
                black teeth, which only a federation can tell those who took no part.
            unreliable: share of the people, from the last one backwards, whose clips are faulty.
            centralised: put all people into one client named ``public``. Tables are still made of the people one by one.
            first: number of the first person; distinct ranges give distinct people.
            outsiders: further, reliable people who are no clients, and of whom tables are made in place of the clients: what a
                released adapter does for those who took no part.
            faults: what is wrong with the unreliable ones, in turn: ``flicker`` (the light), ``shifted_audio``, ``blurred``,
                ``wrong_person`` (a stranger in each clip).
            seed: seed of the population; the run's by default.

        Raises:
            ConfigurationError: a setting is out of its range; it names the key.
        """
        super().__init__()
        check_least("data", 1, speakers=speakers, clips=clips, held_out=held_out)
        check_least("data", 8, frames=frames)
        check_least("data", 0, outsiders=outsiders)
        check_share("data", unreliable=unreliable)
        if size < 32 or size % 8:
            raise ConfigurationError(f"data.size: expected a multiple of 8, at least 32 pixels, got {size}")
        self._faults = check_faults(faults)
        self._own_seed, self._seed = seed, seed or 0
        self._group, self._first, self._count = group, first, speakers
        self._reliable = speakers - round(unreliable * speakers)
        # Names are all that is kept of everybody: a person is drawn when it is a client's turn.
        self._names = [self._draw(0).name, *(Speaker.name_of(group, first + i) for i in range(1, speakers))]
        self._outsiders = [Speaker.name_of(group, first + speakers + i) for i in range(outsiders)]
        self._index = {name: i for i, name in enumerate([*self._names, *self._outsiders])}
        self._clips, self._held_out, self._frames, self.size = clips, held_out, frames, size
        self._centralised = centralised

    def follow_seed(self, seed: int) -> None:
        if self._own_seed is None:
            self._seed = seed

    @property
    def clients(self) -> list[str]:
        return [POOLED] if self._centralised else self._names

    @property
    def unreliable_clients(self) -> list[str]:
        """Clients whose clips are faulty; known here only because the data are made up."""
        return [] if self._centralised else self._names[self._reliable :]

    @property
    def evaluation_clients(self) -> list[str]:
        return self._outsiders or self._names[: self._reliable]

    def training_clips(self, client: str) -> list[ClipSource]:
        return self._sources(client, range(self._clips))

    def held_out_clips(self, client: str) -> list[ClipSource]:
        return self._sources(client, range(self._clips, self._clips + self._held_out))

    def _sources(self, client: str, takes: range) -> list[ClipSource]:
        everybody = self._centralised and client == POOLED
        numbers = range(self._count) if everybody else [self._index[client]]
        return [
            ClipSource(
                f"synthtalk/{s.seed}/{s.name}/{s.fault}/{take}/{self._frames}/{self.size}",
                partial(make_clip, s, take, self._frames, self.size),
            )
            for s in map(self._draw, numbers)
            for take in takes
        ]

    def _draw(self, index: int) -> Speaker:
        faulty = self._reliable <= index < self._count
        fault = self._faults[(self._count - 1 - index) % len(self._faults)] if faulty else None
        return Speaker.draw(self._seed, self._group, self._first + index, fault)
