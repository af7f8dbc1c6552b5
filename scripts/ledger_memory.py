#!/usr/bin/env python
"""Does the ledger forget? Random sequences of fit, kill, resume and copy, against an independent log of all releases.

    python scripts/ledger_memory.py --json

`Releases` plays a careless operator with `fedtalk.privacy.private_rounds.PrivateRounds`, the class that every engine charges and
sums with, on a few numbers in place of an adapter: it starts runs, kills them at any write to the disk or between opening
a sum and writing the checkpoint, resumes folders from their newest, an older or another folder's checkpoint, and copies
folders and checkpoints. Every sum that is opened goes into a log of its own, which knows nothing of ledgers but whose
folders have to do with each other. After every round, what the run prints must not be below what the log comes to: by RDP
against whoever sees the adapters, exactly against who knows the rosters. And no cohort may be drawn twice.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from fedtalk.federation.checkpoint import save_checkpoint
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.privacy import ledger_record
from fedtalk.privacy.accounting import ACCOUNTANTS, gaussian_epsilon, rdp_epsilon
from fedtalk.privacy.private_rounds import PrivateRounds
from fedtalk.privacy.sealed_rounds import AggregationTask
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.settings import Privacy

CLIENTS = [f"client-{number}" for number in range(48)]
MULTIPLIERS, RATES = (0.8, 1.5), (0.5, 0.7)
DELTA, DIMENSION = 1e-2, 3
WRITES = 6
"""A kill comes at one of the first so many writes of a fit, before or after its sum is opened."""


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@dataclass(frozen=True)
class Release:
    """A sum that was opened."""

    family: str
    """The first folder of those that have to do with each other, when it was opened."""
    multiplier: float
    rate: float
    cohort: tuple[str, ...]


@dataclass
class Releases:
    """Folders, and the log of what was released in them."""

    root: Path
    log: list[Release] = field(default_factory=list)
    family: dict[str, str] = field(default_factory=dict)
    """Of every folder; a sum opened in one folder that was resumed from another's checkpoint makes the two families one."""
    checkpoints: list[tuple[Path, str]] = field(default_factory=list)
    """Files, and the folder in which each was made."""
    below: list[str] = field(default_factory=list)
    """What was printed below the log."""
    rounds: int = 0
    kills: int = 0

    def fit(
        self, folder: str, rounds: int, strength: int, checkpoint: int | None = None, kill: int | None = None
    ) -> None:
        """Rounds in a folder, afresh or from a checkpoint.

        Args:
            folder: its name.
            rounds: to take.
            strength: which of the multipliers and rates.
            checkpoint: number of the checkpoint to resume from.
            kill: write at which the process dies.
        """
        source = None if checkpoint is None else self.checkpoints[checkpoint % len(self.checkpoints)]
        if source is None and self._has_record(folder):
            return  # refused: it would forget what was spent
        self.family.setdefault(folder, folder)
        try:
            with mock.patch.dict(ACCOUNTANTS, prv=rdp_epsilon):  # a second for each history, and the same history
                self._rounds(folder, rounds, strength, source, kill)
        except Killed:
            self.kills += 1

    def _join(self, folder: str, other: str) -> None:
        """A sum was opened in ``folder`` that goes on from ``other``'s; a process that was killed before that joined nothing."""
        mine, theirs = self.family[folder], self.family[other]
        self.family = {name: mine if one == theirs else one for name, one in self.family.items()}

    def _rounds(
        self, folder: str, rounds: int, strength: int, source: tuple[Path, str] | None, kill: int | None
    ) -> None:
        home, writes = self.root / folder / "checkpoints", 0
        real = ledger_record.write_json

        def dying(*arguments: object, **settings: object) -> None:
            nonlocal writes
            writes += 1
            if kill is not None and writes == kill:
                raise Killed
            real(*arguments, **settings)  # type: ignore[arg-type]

        multiplier, rate = MULTIPLIERS[strength % 2], RATES[strength // 2 % 2]
        privacy = Privacy(
            noise_multiplier=multiplier, delta=DELTA, secure_aggregation=False, where="central", accountant="rdp",
            assumptions=Assumptions(0.0, 0.3),
        )  # fmt: skip
        task = AggregationTask(DIMENSION, ["lora_B"], CLIENTS, PoissonCohort(rate), rounds, 3, 0, home)
        private = PrivateRounds(privacy, task)
        assert private.ledger is not None
        if source is not None:
            private.recall(source[0].resolve().parent)
            private.load_state_dict(torch.load(source[0], weights_only=True)["aggregation"])
        for number in range(rounds):
            cohort = private.draw_cohort(number)
            with mock.patch.object(ledger_record, "write_json", dying):
                private.charge()
            sealing = private.open_round(number, cohort, cohort)
            vector = private.vector(np.ones(DIMENSION), 1.0)
            sealing.open_sum([sealing.seal(client, vector) for client in cohort])
            if source is not None:
                self._join(folder, source[1])
            self.log.append(Release(self.family[folder], multiplier, rate, tuple(cohort)))
            self.rounds += 1
            self._compare(private, folder)
            if kill is not None and writes + 1 == kill:
                raise Killed  # between the release and the checkpoint
            path = home / f"round-{self.rounds}.ckpt"
            save_checkpoint(path, {"aggregation": private.state_dict()})
            self.checkpoints.append((path, folder))

    def _compare(self, private: PrivateRounds, folder: str) -> None:
        """What is printed now, against all releases of the folder's family."""
        ledger, family = private.ledger, self.family[folder]
        assert ledger is not None
        ours = [release for release in self.log if self.family[release.family] == family]
        history: dict[tuple[float, float], int] = {}
        for release in ours:
            history[release.multiplier, release.rate] = history.get((release.multiplier, release.rate), 0) + 1
        rounds = [(*key, count) for key, count in history.items()]
        mu = (
            max(sum(release.multiplier**-2 for release in ours if client in release.cohort) for client in CLIENTS)
            ** 0.5
        )
        worst = gaussian_epsilon([(1 / mu, 1.0, 1)], DELTA) if mu else 0.0
        printed, drawn = ledger.spent(), gaussian_epsilon(ledger.charges.most_often_drawn(), DELTA)
        low = (
            printed.rdp < rdp_epsilon(rounds, DELTA) - 1e-9
            or drawn < worst - 1e-9
            or printed.no_sampling < drawn - 1e-9
        )
        if low:
            self.below.append(f"{folder}: {ledger.rounds} rounds charged, {len(ours)} released")

    def copy(self, source: str, target: str) -> None:
        """``cp -r source target``, to a new folder."""
        if (self.root / target).exists() or not (self.root / source).exists():
            return
        shutil.copytree(self.root / source, self.root / target)
        self.family[target] = self.family[source]
        for path in sorted((self.root / target).rglob("*.ckpt")):
            self.checkpoints.append((path, target))

    def put_aside(self, checkpoint: int) -> None:
        """A checkpoint by itself, in a folder without a ledger."""
        path, folder = self.checkpoints[checkpoint % len(self.checkpoints)]
        aside = self.root / "aside" / str(len(self.checkpoints)) / "last.ckpt"
        aside.parent.mkdir(parents=True)
        shutil.copy(path, aside)
        self.checkpoints.append((aside, folder))

    def _has_record(self, folder: str) -> bool:
        return (self.root / folder / "checkpoints" / ledger_record.RECORD).exists()

    @property
    def repeated(self) -> int:
        """Cohorts that were drawn before; among 48 clients chance does so once in 2^40."""
        return len(self.log) - len({release.cohort for release in self.log})


def forgets(sequences: int, seed: int, steps: int = 10) -> dict[str, int]:
    """Random sequences; ``below`` counts prints below the log, ``repeated`` cohorts that were drawn twice."""
    generator = random.Random(seed)
    found = dict.fromkeys(("sequences", "rounds", "kills", "below", "repeated"), 0)
    for _ in range(sequences):
        with tempfile.TemporaryDirectory() as folder:
            world = Releases(Path(folder))
            world.fit("a", 2, generator.randrange(4))
            for _ in range(steps):
                kind, one, other = generator.randrange(6), *generator.choices("abcd", k=2)
                number, kill = generator.randrange(1000), generator.choice([None, *range(1, WRITES + 1)])
                if kind == 0:
                    world.copy(one, other)
                elif kind == 1:
                    world.put_aside(number)
                else:
                    fresh = kind == 2
                    world.fit(one, generator.randint(1, 2), number, None if fresh else number // 4, kill)
        found["sequences"] += 1
        found["rounds"] += world.rounds
        found["kills"] += world.kills
        found["below"] += len(world.below)
        found["repeated"] += world.repeated
    return found


def main() -> None:
    """Run the sequences; exit status 1 if the ledger forgot something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the sequences")
    parser.add_argument("--json", action="store_true", help="one JSON line")
    options = parser.parse_args()
    found = forgets(options.sequences, options.seed)
    print(json.dumps(found) if options.json else json.dumps(found, indent=2))
    if found["below"] or found["repeated"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
