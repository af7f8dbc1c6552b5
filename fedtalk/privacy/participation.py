"""How often a client gives something: counted by the client itself, on its own disk, whatever a server asks for.

Where no secret of sampling is relied on, a client's epsilon follows from the number of its releases alone. So the client keeps
that number, writes it down before anything can leave, and refuses what would be one too many. The record outlives
processes, resumed runs and servers; it belongs to the folder in which the client keeps its part of the run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from fedtalk.errors import ArtifactError, FedTalkError
from fedtalk.storage import exclusive, write_json

log = logging.getLogger("fedtalk")

RECORD = "participation.json"


class ParticipationRefused(FedTalkError):
    """A client has given as often as it agreed to."""


class Participation:
    """Counts of the clients that are kept in one folder: one person's device, a site's people, or a simulation's all."""

    def __init__(self, folder: Path, most: int) -> None:
        """
        Args:
            folder: where the record is kept.
            most: times that a client gives something, at most.
        """
        self._folder, self.most = folder, most

    def consenting(self, clients: Iterable[str]) -> list[str]:
        """Those of ``clients`` that give something once more, which is on the disk when this returns; the others refuse.

        Raises:
            ArtifactError: the record can't be read.
            OutputError: it can't be written; nothing may leave.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self._folder / f".{RECORD}.lock"):
            counts = self.counts()
            consenting = []
            for client in clients:
                if counts.get(client, 0) < self.most:
                    counts[client] = counts.get(client, 0) + 1
                    consenting.append(client)
                else:
                    log.warning(
                        "client %s has taken part %d times, as often as it agreed to (trainer.cohort, trainer.rounds): it gives "
                        "nothing more", client, counts[client],
                    )  # fmt: skip
            write_json(self._folder / RECORD, counts, private=True)
        return consenting

    def counts(self) -> dict[str, int]:
        """Times that each client has taken part.

        Raises:
            ArtifactError: the record can't be read.
        """
        path = self._folder / RECORD
        try:
            counts = json.loads(path.read_text(encoding="utf-8"))
            if not all(type(count) is int and count > 0 for count in counts.values()):
                raise ValueError("expected a number of times for each client")
            return counts
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            raise ArtifactError(
                f"{path} can't be read ({type(error).__name__}): how often clients took part is not known. Restore it; a client "
                "whose record is lost has no guarantee left to give."
            ) from error
