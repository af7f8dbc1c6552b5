"""Consent: the record in each person's folder that says who agreed to what, and until when.

``CLIENTS/anna/consent.yaml``. `fedtalk prepare` writes it with nothing agreed to, a person fills it in::

    person: anna
    purposes: [train, generate]
    given: 2026-11-27
    until: 2027-11-27
    revoked: null
"""

from __future__ import annotations

import contextlib
import glob
import logging
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path

import yaml

from fedtalk.data.names import not_data, readable
from fedtalk.errors import ArtifactError, ConfigurationError, OutputError
from fedtalk.storage import atomic_path

log = logging.getLogger("fedtalk")

RECORD = "consent.yaml"
TRAIN, GENERATE = "train", "generate"
PURPOSES = (TRAIN, GENERATE)
MODES = ("warn", "strict")

TEMPLATE = """\
# Consent of the person whose face and voice lie in this folder. It is theirs to give, and to take back at any time.
# Nothing is agreed to until `given` holds a date.
person: {person}        # who
purposes: []            # what for: train (an adapter from these clips), generate (videos with that adapter)
given: null             # the day on which they agreed, for instance 2026-11-27
until: null             # the last day on which it holds; null: until it is taken back
revoked: null           # the day on which it was taken back; their clips are no longer used, their adapter is deleted
"""


@dataclass(frozen=True)
class Consent:
    """What a person agreed to."""

    person: str
    purposes: tuple[str, ...] = ()
    given: date | None = None
    until: date | None = None
    revoked: date | None = None

    def problem(self, purpose: str, today: date | None = None) -> str | None:
        """Why it does not cover ``purpose`` (`TRAIN` or `GENERATE`) on a day, today by default; None where it does."""
        today = today or date.today()
        if self.revoked is not None and self.revoked <= today:
            return f"was taken back on {self.revoked}"
        if self.given is None or self.given > today:
            return "is not given"
        if self.until is not None and self.until < today:
            return f"ended on {self.until}"
        if purpose not in self.purposes:
            return f"does not cover {purpose!r}"
        return None


def write_template(folder: Path) -> None:
    """Put an empty record into a person's folder, unless there is one."""
    path = folder / RECORD
    if not path.exists():
        with atomic_path(path) as temporary:
            temporary.write_text(_template(folder), encoding="utf-8")


def remove_template(folder: Path) -> None:
    """Take the record of a person away who has no clip any more, if nothing was ever written into it."""
    path = folder / RECORD
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8") == _template(folder):
            path.unlink()


def _template(folder: Path) -> str:
    return TEMPLATE.format(person=yaml.safe_dump(folder.name, allow_unicode=True).removesuffix("...\n").strip())


def read_consent(folder: Path) -> Consent:
    """The record in a person's folder.

    Raises:
        ArtifactError: there is none, or it can't be understood.
    """
    path = folder / RECORD
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"no consent record {path}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ArtifactError(f"consent record {path} can't be read ({' '.join(str(error).split())})") from error
    known = {one.name for one in fields(Consent)}
    if not isinstance(stored, Mapping) or not set(stored) <= known or not isinstance(stored.get("person"), str):
        raise ArtifactError(f"consent record {path}: expected the keys {', '.join(sorted(known))}")
    purposes = stored.get("purposes") or []
    if not isinstance(purposes, list) or not set(map(str, purposes)) <= set(PURPOSES):
        raise ArtifactError(f"consent record {path}: purposes are a list of {', '.join(PURPOSES)}, got {purposes!r}")
    days = {name: stored.get(name) for name in ("given", "until", "revoked")}
    for name, day in days.items():
        if day is not None and type(day) is not date:
            raise ArtifactError(f"consent record {path}: {name} is a day like 2026-11-27, or null; got {day!r}")
    return Consent(stored["person"], tuple(purposes), **days)


def problem(folder: Path, purpose: str) -> str | None:
    """Why the record in a person's folder does not cover a purpose, as the end of a sentence about that person."""
    try:
        why = read_consent(folder).problem(purpose)
    except ArtifactError as error:
        return str(error)
    return None if why is None else f"consent {why}"


def revoked(folder: Path) -> bool:
    """Whether the person has taken their consent back."""
    try:
        record = read_consent(folder)
    except ArtifactError:  # told by `require`
        return False
    return record.revoked is not None and record.revoked <= date.today()


def require(root: Path, people: Iterable[str], mode: str) -> None:
    """Look at the records of all who are to be trained on.

    Args:
        root: clients folder.
        people: names of folders in it.
        mode: ``warn`` prints one line about those without consent, ``strict`` refuses.

    Raises:
        ConfigurationError: another mode; or, where it is ``strict``, somebody's consent is missing or has ended.
    """
    if mode not in MODES:
        raise ConfigurationError(f"data.consent: expected one of {', '.join(MODES)}, got {mode!r}")
    found = {person: problem(root / person, TRAIN) for person in people}
    lacking = {person: why for person, why in found.items() if why is not None}
    if not lacking:
        return
    first = "; ".join(f"{person}: {why}" for person, why in list(lacking.items())[:5])
    message = (
        f"consent: {len(lacking)} of {len(found)} people have not agreed to be trained on ({first}"
        f"{'; ...' if len(lacking) > 5 else ''}). Have each fill in {RECORD} in their folder below {root}"
    )
    if mode == "strict":
        raise ConfigurationError(f"{message}, or take them out")
    log.warning("%s; data.consent: strict refuses to train without it", message)


def overview(root: Path) -> tuple[list[str], list[str]]:
    """A line for each person of a clients folder, and the names of those who took consent back.

    Raises:
        ArtifactError: there is no such folder.
    """
    if not root.is_dir():
        raise ArtifactError(f"clients folder {root} does not exist; make it with `fedtalk prepare RAW_VIDEOS {root}`")
    people = sorted(path.name for path in root.iterdir() if path.is_dir() and not not_data(path.name))
    lines = []
    for person in people:
        states = {purpose: problem(root / person, purpose) for purpose in PURPOSES}
        covered = [purpose for purpose, why in states.items() if why is None]
        reasons = dict.fromkeys(why for why in states.values() if why is not None)
        lines.append(
            f"{readable(person)}: " + "; ".join([*([f"agreed to {', '.join(covered)}"] if covered else []), *reasons])
        )
    return lines or [f"nobody in {root}"], [person for person in people if revoked(root / person)]


def forget(folder: Path, people: Iterable[str]) -> list[Path]:
    """Delete what runs keep of people who took their consent back, and say so.

    Their personal adapters and optimizer states go, never a released adapter, whatever somebody is called. What that one
    learned from them while they took part can't be taken out of it.

    Args:
        folder: a run's folder, or one above several.
        people: their names.

    Returns:
        the folders that were deleted.

    Raises:
        OutputError: one can't be deleted.
    """
    gone = []
    for person in people:
        adapters = [path.parent for path in folder.rglob(f"personal/{glob.escape(person)}/adapter_config.json")]
        states = [path for path in folder.rglob(f"clients/{glob.escape(person)}") if any(path.glob("*.ckpt"))]
        for path in sorted(adapters + states):
            try:
                shutil.rmtree(path)
            except OSError as error:
                raise OutputError(f"{path} of {person}, who took consent back, can't be deleted ({error})") from error
            log.warning("deleted %s: %s took consent back", path, person)
            gone.append(path)
    return gone
