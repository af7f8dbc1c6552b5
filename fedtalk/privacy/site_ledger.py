"""What a site's people have given, over all runs and servers: kept by the site, which believes no server about it.

One file, ``site_ledger.json``, mode 0600, on the disk before a masked vector leaves:

    {"kind": "site", "version": 1, "runs": [
        {"server": "…", "agreement": "…", "noise_multiplier": 0.6, "rate": 0.15, "delta": 1e-4, "rounds": 100,
         "reached": 12, "retaken": 1, "sessions": {"…": 11}, "counted": {"…": 12}, "people": {"anna": 3, "bert": 0}}]}

A run is what one server (the fingerprint of its key) does under one agreement (its hash). ``reached`` counts its rounds up to
the newest one that this site gave to, ``retaken`` those that were taken again by another session, after the server was started
anew, ``people`` the rounds in which a person's vector left. Under Poisson sampling a run costs those too who were not drawn,
since they could have been: all of the site's people are in it. Without noise ``noise_multiplier`` and ``delta`` are null,
without Poisson sampling ``rate`` is.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fedtalk.errors import ArtifactError
from fedtalk.privacy.accounting import ACCOUNTANTS
from fedtalk.privacy.participation import ParticipationRefused
from fedtalk.storage import exclusive, write_json

FILE = "site_ledger.json"
KIND, VERSION = "site", 1
RETAKEN = 3
"""Rounds more than agreed that a person takes part in at most by default: a server that is killed takes one again."""


@dataclass
class SiteRun:
    """What one server had from a site's people under one agreement."""

    server: str
    agreement: str
    noise_multiplier: float | None
    rate: float | None
    """Of Poisson sampling."""
    delta: float | None
    rounds: int
    """Agreed."""
    reached: int = 0
    retaken: int = 0
    sessions: dict[str, int] = field(default_factory=dict)
    """By session, the newest round in it."""
    counted: dict[str, int] = field(default_factory=dict)
    """By session, the round up to which all that it takes are in ``reached`` or ``retaken``."""
    people: dict[str, int] = field(default_factory=dict)
    """By person of the site, rounds in which its vector left."""

    def after(self, session: str, number: int, people: Iterable[str], registered: Iterable[str] = ()) -> SiteRun:
        """As it will be once these people have given in a round.

        A session that is new begins again where it is first heard of, and is expected to get as far as the run was; one that
        goes on may have been overtaken by another since.
        """
        newest = self.sessions.get(session)
        counted = self.counted.get(session, number if newest is None else newest + 1)
        again = self.reached if newest is None else min(number + 1, self.reached)
        counts = dict.fromkeys(registered, 0) | self.people
        for person in people:
            counts[person] = counts.get(person, 0) + 1
        return replace(
            self, reached=max(self.reached, number + 1), retaken=self.retaken + max(0, again - counted),
            sessions={**self.sessions, session: max(number, newest or 0)},
            counted={**self.counted, session: max(counted, again, number + 1)}, people=counts,
        )  # fmt: skip

    def under(self, terms: SiteRun) -> SiteRun:
        """The same run with the weaker of its own noise and another's: both are of one agreement, and nearly alike."""
        if None in (self.noise_multiplier, terms.noise_multiplier):
            return self
        weaker = min(self.noise_multiplier, terms.noise_multiplier)  # type: ignore[type-var]
        return replace(self, noise_multiplier=weaker)


@dataclass(frozen=True)
class SiteBudget:
    """What a site allows a person to give, over all runs and servers."""

    epsilon: float | None
    """Against whoever sees the released adapters; None for no limit."""
    rounds: int
    """In which a person's vector leaves."""
    accountant: str = "prv"


@dataclass(frozen=True)
class PersonSpent:
    """What one person has given."""

    rounds: int
    adapters: float
    """Epsilon against whoever sees the released adapters; infinite if there was a run without noise."""
    insiders: float
    """Epsilon against servers and sites, who know in which rounds the person took part."""
    delta: float


class SiteLedger:
    """The file in a folder."""

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: made when something is first written.

        Raises:
            ArtifactError: the file can't be read; what was spent is not known then.
        """
        self.folder, self.path = folder, folder / FILE
        self.runs = self._read()

    @classmethod
    def lies_in(cls, folder: Path) -> bool:
        """Whether a folder holds one."""
        return (folder / FILE).exists()

    @property
    def people(self) -> list[str]:
        """Everybody of whom something was or could have been released."""
        return sorted({person for run in self.runs for person in run.people})

    def spent(self, person: str, accountant: str = "prv") -> PersonSpent:
        """What a person has given in all runs together."""
        rounds, adapters, insiders, delta = _histories(self.runs, person)
        return PersonSpent(rounds, _epsilon(adapters, delta, accountant), _epsilon(insiders, delta, accountant), delta)

    def refusal(self, terms: SiteRun, session: str, number: int, person: str, budget: SiteBudget) -> str | None:
        """Why a person may not give in a round, if it may not.

        Args:
            terms: server, agreement and noise of the run; its counts are the file's.
            session: of the server, in hexadecimal.
            number: of the round.
            person: name.
            budget: of the site.
        """
        if not 0 <= number < terms.rounds:
            return f"round {number} of {terms.rounds} that were agreed on (trainer.rounds)"
        self.runs = self._read()  # another run of this site may have written meanwhile
        newest = self._run(terms).sessions.get(session, -1)
        if number <= newest:
            return f"{person}: expected a round after {newest}, got {number}; this site has given in it already"
        return self._over_budget(terms, session, number, person, budget)

    def _over_budget(self, terms: SiteRun, session: str, number: int, person: str, budget: SiteBudget) -> str | None:
        after = [*self._others(terms), self._run(terms).after(session, number, [person])]
        rounds, history, _, delta = _histories(after, person)
        if rounds > budget.rounds:
            return f"{person} has given in {rounds - 1} rounds, the most that its site allows (flower.rounds_budget)"
        if budget.epsilon is None or terms.noise_multiplier is None:
            return None
        epsilon = _epsilon(history, delta, budget.accountant)
        if epsilon <= budget.epsilon:
            return None
        return (
            f"{person} would come to epsilon {epsilon:.3f} over all runs, above the {budget.epsilon:g} that its site allows "
            "(flower.epsilon_budget)"
        )

    def take(
        self,
        terms: SiteRun,
        session: str,
        number: int,
        people: Iterable[str],
        registered: Iterable[str] = (),
        budget: SiteBudget | None = None,
    ) -> None:
        """Write down, for good, that these people give in a round; to be called before anything of it leaves.

        Args:
            terms: server, agreement and noise of the run; its counts are the file's.
            session: of the server, in hexadecimal.
            number: of the round.
            people: who give.
            registered: the site's people, who could have been drawn.
            budget: of the site, held against what all runs have written until this moment.

        Raises:
            ParticipationRefused: one of them has no budget left; nothing may leave, and nothing was written.
            OutputError: it could not be written; nothing may leave.
        """
        people = list(people)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with exclusive(self.folder / ".lock"):
            self.runs = self._read()  # another run of this site may have written meanwhile
            if budget is not None:
                for person in people:
                    refused = self._over_budget(terms, session, number, person, budget)
                    if refused is not None:
                        raise ParticipationRefused(refused)
            runs = [*self._others(terms), self._run(terms).after(session, number, people, registered)]
            content = {"kind": KIND, "version": VERSION, "runs": [asdict(run) for run in runs]}
            write_json(self.path, content, private=True)
            self.runs = runs

    def _run(self, terms: SiteRun) -> SiteRun:
        return next((run.under(terms) for run in self.runs if _same(run, terms)), terms)

    def _others(self, terms: SiteRun) -> list[SiteRun]:
        return [run for run in self.runs if not _same(run, terms)]

    def _read(self) -> list[SiteRun]:
        if not self.path.exists():
            return []
        try:
            content: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            if content["kind"] != KIND or content["version"] != VERSION:
                raise ValueError(f"kind {content['kind']}, version {content['version']}")
            return [SiteRun(**run) for run in content["runs"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"the site's ledger {self.path} can't be read ({type(error).__name__}: {error}); what its people have given is "
                "not known. Expected the file as it was written: restore it"
            ) from error


def _same(run: SiteRun, terms: SiteRun) -> bool:
    return (run.server, run.agreement) == (terms.server, terms.agreement)


Stretches = tuple[tuple[float, float, int], ...]


def _histories(runs: Iterable[SiteRun], person: str) -> tuple[int, Stretches | None, Stretches | None, float]:
    """A person's rounds; what was released, with sampling and without, None where some of it had no noise; the smallest delta."""
    adapters, insiders, rounds, clear, delta = [], [], 0, False, 1.0
    for run in runs:
        taken = run.people.get(person, 0)
        rounds += taken
        if run.noise_multiplier is None or run.delta is None:
            clear = clear or taken > 0
            continue
        # Without Poisson sampling a person's own rounds are all that counts.
        own, sampled = (run.noise_multiplier, 1.0, taken), run.rate is not None and person in run.people
        if taken:
            insiders.append(own)
        if taken or sampled:
            adapters.append(
                (run.noise_multiplier, run.rate, run.reached + run.retaken) if run.rate is not None else own
            )
            delta = min(delta, run.delta)
    return rounds, None if clear else tuple(adapters), None if clear else tuple(insiders), delta


@functools.lru_cache(maxsize=4096)
def _epsilon(history: Stretches | None, delta: float, accountant: str) -> float:
    if not history:
        return math.inf if history is None else 0.0
    epsilon = ACCOUNTANTS[accountant](history, delta)
    return epsilon if math.isfinite(epsilon) else ACCOUNTANTS["rdp"](history, delta)
