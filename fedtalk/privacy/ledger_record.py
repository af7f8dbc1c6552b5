"""``ledger.json``, beside a run's checkpoint: what was charged, and where else records of the same charges lie.

A record names every folder in which its charges were ever written (`LedgerRecord.places`), so copies of a folder find each other
as long as one of the folders that they come from is still where it was: a charge is written into all of them. What lies on
another machine, or was moved there before it was copied, can't be found and is not counted; the charges that the copy
brought with it always are.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedtalk.errors import ArtifactError, OutputError
from fedtalk.privacy.charges import Charges, DifferentHistories
from fedtalk.storage import exclusive, write_json

log = logging.getLogger("fedtalk")

RECORD = "ledger.json"
_LOCK = ".ledger.lock"
_FORMAT = 2


@dataclass
class Terms:
    """What charges must be read with, of the run that wrote last."""

    delta: float
    void_probability: float = 0.0
    """That one client would decide whether a round is void, a round (`fedtalk.privacy.void_rounds`)."""
    planned: int = 0
    """Rounds for which delta is set aside."""
    accountant: str = "prv"
    """Which of the bounds stops the run."""
    budget: float | None = None
    central: bool = False
    """Whether the server adds the noise, and sees sums without it."""
    insecure: bool = False
    """Whether any of the noise was seeded."""


@dataclass
class LedgerRecord:
    """What one file holds."""

    charges: Charges
    terms: Terms
    places: set[str] = field(default_factory=set)
    """Absolute paths of folders with records of the same charges."""

    def as_json(self) -> dict[str, Any]:
        return {
            "format": _FORMAT, "terms": vars(self.terms), "places": sorted(self.places), "history": self.charges.as_json(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> LedgerRecord:
        """
        Raises:
            ValueError, TypeError, KeyError, AttributeError: it isn't what `as_json` gives.
        """
        if saved["format"] != _FORMAT:
            raise ValueError(f"expected format {_FORMAT}, got {saved['format']!r}")
        terms = Terms(**saved["terms"])
        if not 0 < terms.delta < 1:
            raise ValueError(f"expected delta in (0, 1), got {terms.delta!r}")
        places = saved["places"]
        if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
            raise ValueError(f"expected a list of folders, got {places!r:.200}")
        return cls(Charges.from_json(saved["history"]), terms, set(places))


def read_record(folder: Path) -> LedgerRecord | None:
    """The record in a folder; None where there is none.

    Raises:
        ArtifactError: it can't be read: not knowing what was spent isn't the same as having spent nothing.
    """
    path = folder / RECORD
    try:
        return LedgerRecord.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            f"privacy ledger {path} can't be read ({type(error).__name__}: {error}); what the run spent is not known. Restore "
            "it, or start a new run in another folder."
        ) from error


def exchange(record: LedgerRecord, home: Path) -> None:
    """Write a record into its own folder and all other places, having taken over what those have more.

    When it returns, everything is on the disk. A place that is gone, or holds a ledger without any history in common, is
    left alone.

    Args:
        record: grows by what is found.
        home: the run's own folder; made if it is missing.

    Raises:
        ArtifactError: a record can't be read, or contradicts this one.
        OutputError: the run's own record can't be written.
    """
    home = home.resolve()
    record.places.add(str(home))
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {home / RECORD}: {error.strerror or error}. Expected a writable folder."
        ) from error
    gather(record)
    for place in sorted(record.places - {str(home)}):
        if (Path(place) / RECORD).exists():
            try:
                _write(record, Path(place), foreign=True)
            except OutputError as error:
                log.warning("the ledger in %s can't be told what is spent here: %s", place, error)
    _write(record, home, foreign=False)


def gather(record: LedgerRecord) -> None:
    """Take over what the records in all known places have more, and in the places that those know.

    Raises:
        ArtifactError: a record can't be read, or contradicts this one.
    """
    read: set[str] = set()
    again = True
    while again:  # what one place holds may name others, or show that another one's ledger is related after all
        again = False
        for place in sorted(record.places - read):
            found = read_record(Path(place))
            if found is not None and found.charges.shares_any(record.charges):
                take_over(record, found, Path(place))
                read.add(place)
                again = True


def take_over(record: LedgerRecord, found: LedgerRecord, folder: Path) -> None:
    """Add the charges of another record, whatever run they are of.

    Raises:
        ArtifactError: the two contradict each other.
    """
    try:
        record.charges.merge(found.charges)
    except DifferentHistories as error:
        raise ArtifactError(
            f"privacy ledger {folder / RECORD}: {error}; what the run spent is not known. Restore the later of the two records."
        ) from error
    record.places |= found.places
    record.terms.insecure |= found.terms.insecure
    record.terms.central |= found.terms.central


def _write(record: LedgerRecord, folder: Path, foreign: bool) -> None:
    with exclusive(folder / _LOCK):
        found = read_record(folder)
        if foreign and (found is None or not found.charges.shares_any(record.charges)):
            return  # gone meanwhile, or another run's
        if found is not None:
            take_over(record, found, folder)
        terms = found.terms if found is not None and foreign else record.terms
        terms.insecure |= record.terms.insecure
        terms.central |= record.terms.central
        write_json(folder / RECORD, LedgerRecord(record.charges, terms, record.places).as_json(), private=True)
