"""What was charged, by whom: histories that grow, that can be copied, and that add up again without a round lost or doubled.

Every opening of a ledger (one process, from its start to its end) charges under a random name of its own, and only ever
appends. So two records of one name are an earlier and a later state of the same history, and the later one holds for both;
histories of different names are different rounds, and add up. This is a grow-only counter: merging is commutative,
associative and idempotent, so records may be exchanged in any order, any number of times, also after folders were copied
and each copy went on by itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedtalk.privacy.accounting import History

_NAME = re.compile(r"[0-9a-f]{32}")


class DifferentHistories(ValueError):
    """Two records of one name of which neither continues the other."""


@dataclass
class Stretch:
    """Rounds of the same noise and sampling, one after the other."""

    multiplier: float
    """z of the noise, relative to the sum's sensitivity."""
    rate: float | None
    """q of secret Poisson sampling; None where it is no secret who takes part."""
    rounds: int = 0
    drawn: dict[str, int] = field(default_factory=dict)
    """How many of these rounds each client was drawn for."""

    def continues(self, earlier: Stretch) -> bool:
        return (
            (self.multiplier, self.rate) == (earlier.multiplier, earlier.rate)
            and self.rounds >= earlier.rounds
            and all(self.drawn.get(client, 0) >= count for client, count in earlier.drawn.items())
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "noise_multiplier": self.multiplier,
            "rate": self.rate,
            "rounds": self.rounds,
            "drawn": dict(self.drawn),
        }

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Stretch:
        """
        Raises:
            ValueError, TypeError, KeyError: it isn't one.
        """
        rate, drawn = saved["rate"], saved["drawn"]
        stretch = cls(float(saved["noise_multiplier"]), None if rate is None else float(rate), int(saved["rounds"]))
        stretch.drawn = {str(client): int(count) for client, count in drawn.items()}
        sound = math.isfinite(stretch.multiplier) and stretch.multiplier > 0 and stretch.rounds >= 1
        if not sound or not (rate is None or 0 < stretch.rate <= 1):  # type: ignore[operator]
            raise ValueError(f"expected a stretch of noised rounds, got {saved!r:.200}")
        if any(not 0 < count <= stretch.rounds for count in stretch.drawn.values()):
            raise ValueError(f"expected every client in 1 to {stretch.rounds} rounds, got {stretch.drawn!r:.200}")
        return stretch


class Charges:
    """Histories by name.

    >>> one, other = Charges(), Charges()
    >>> one.add("a" * 32, 1.0, 0.5, ["anna"])
    >>> copy = one.copy()
    >>> one.add("b" * 32, 1.0, 0.5, [])
    >>> copy.add("c" * 32, 1.0, 0.5, ["anna"])
    >>> one.merge(copy)
    >>> one.rounds, one.times_drawn("anna")
    (3, 2)
    """

    def __init__(self) -> None:
        self.histories: dict[str, list[Stretch]] = {}

    def add(self, name: str, multiplier: float, rate: float | None, cohort: Iterable[str]) -> None:
        """One more round in the history ``name``, which nobody else adds to."""
        history = self.histories.setdefault(name, [])
        if not history or (history[-1].multiplier, history[-1].rate) != (multiplier, rate):
            history.append(Stretch(multiplier, rate))
        history[-1].rounds += 1
        for client in cohort:
            history[-1].drawn[client] = history[-1].drawn.get(client, 0) + 1

    def merge(self, other: Charges) -> None:
        """Take over all that ``other`` has more.

        Raises:
            DifferentHistories: a history differs in another way than by its length; nothing is taken over then.
        """
        longer = {}
        for name, theirs in other.histories.items():
            ours = self.histories.get(name, [])
            if _continues(theirs, ours):
                longer[name] = theirs
            elif not _continues(ours, theirs):
                raise DifferentHistories(f"two records of the history {name} contradict each other")
        for name, history in longer.items():
            self.histories[name] = [Stretch(s.multiplier, s.rate, s.rounds, dict(s.drawn)) for s in history]

    def shares_any(self, other: Charges) -> bool:
        """Whether they have a history in common, and so an origin."""
        return not self.histories.keys().isdisjoint(other.histories)

    def copy(self) -> Charges:
        new = Charges()
        new.merge(self)
        return new

    @property
    def stretches(self) -> list[Stretch]:
        """All of them, in the order of the histories' names."""
        return [stretch for name in sorted(self.histories) for stretch in self.histories[name]]

    @property
    def rounds(self) -> int:
        """Rounds in all."""
        return sum(stretch.rounds for stretch in self.stretches)

    def times_drawn(self, client: str) -> int:
        """Rounds for which a client was drawn."""
        return sum(stretch.drawn.get(client, 0) for stretch in self.stretches)

    # What accountants are given

    def against_adapters(self) -> History:
        """(z, q, rounds) for an adversary that doesn't know who took part, where that is a secret.

        Where it is none, the rounds of the client for which they come to most, each at rate 1.
        """
        sampled = [(s.multiplier, s.rate, s.rounds) for s in self.stretches if s.rate is not None]
        return _joined([*sampled, *self._most(s for s in self.stretches if s.rate is None)])

    def most_often_drawn(self) -> History:
        """(z, 1, rounds) of the client for which they come to most, for an adversary that knows who took part."""
        return _joined(self._most(self.stretches))

    def drawn_every_time(self) -> History:
        """(z, 1, rounds) of a client that was drawn for every round; says nothing about anybody."""
        secret = [(s.multiplier, 1.0, s.rounds) for s in self.stretches if s.rate is not None]
        return _joined([*secret, *self._most(s for s in self.stretches if s.rate is None)])

    @staticmethod
    def _most(stretches: Iterable[Stretch]) -> list[tuple[float, float, int]]:
        """Gaussian releases compose to one of mu^2 = sum of rounds / z^2, so the largest mu is the worst client."""
        spent: dict[str, float] = {}
        stretches = list(stretches)
        for stretch in stretches:
            for client, count in stretch.drawn.items():
                spent[client] = spent.get(client, 0.0) + count / stretch.multiplier**2
        if not spent:
            return []
        worst = max(spent, key=spent.__getitem__)
        return [(s.multiplier, 1.0, s.drawn[worst]) for s in stretches if worst in s.drawn]

    # On disk

    def as_json(self) -> dict[str, Any]:
        return {name: [stretch.as_json() for stretch in history] for name, history in self.histories.items()}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Charges:
        """
        Raises:
            ValueError, TypeError, KeyError, AttributeError: it isn't what `as_json` gives.
        """
        charges = cls()
        for name, history in saved.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"expected 32 hexadecimal digits as a history's name, got {name!r:.80}")
            charges.histories[name] = [Stretch.from_json(stretch) for stretch in history]
        return charges


def _continues(later: Sequence[Stretch], earlier: Sequence[Stretch]) -> bool:
    if len(later) < len(earlier):
        return False
    whole = all(a == b for a, b in zip(later[: len(earlier) - 1], earlier[:-1], strict=True)) if earlier else True
    return whole and (not earlier or later[len(earlier) - 1].continues(earlier[-1]))


def _joined(history: Iterable[tuple[float, float, int]]) -> History:
    """Stretches of the same (z, q) as one: the order of rounds changes no accountant's answer."""
    rounds: dict[tuple[float, float], int] = {}
    for multiplier, rate, count in history:
        rounds[multiplier, rate] = rounds.get((multiplier, rate), 0) + count
    return [(*key, count) for key, count in rounds.items()]
