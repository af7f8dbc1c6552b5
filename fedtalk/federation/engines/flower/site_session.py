"""A site's side of one server's session: its privacy, made from the site's own config, and what its people may still give."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fedtalk.errors import ArtifactError
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.federation.engines.flower.messages import MessageError, SiteMessage
from fedtalk.federation.federation import Federation
from fedtalk.privacy.private_rounds import PrivateRounds
from fedtalk.privacy.rounds import rounds_of
from fedtalk.privacy.secagg.messages import SESSION_BYTES
from fedtalk.privacy.site_ledger import RETAKEN, SiteBudget, SiteLedger, SiteRun
from fedtalk.storage import write_json

log = logging.getLogger("fedtalk")

JOINED = "joined.json"
"""In the site's run folder: the newest round that was joined, so that a restart doesn't join it again."""
MOST_REGISTERED = 1_000_000
"""Clients of a federation; a larger number is not believed, since noise and ring are sized by it."""


class SiteAccount:
    """What a site lets its people give, and has written down of it."""

    def __init__(self, folder: Path, server: str, rounds: int | None = None, epsilon: float | None = None) -> None:
        """
        Args:
            folder: of the ledger; the same one for all runs of a site's people.
            server: fingerprint of the server's key.
            rounds: that a person may take part in, over all runs; the agreed ones and `RETAKEN` more by default.
            epsilon: that a person may spend, over all runs; the config's budget by default.
        """
        self.ledger, self.server, self.rounds, self.epsilon = SiteLedger(folder), server, rounds, epsilon


class SiteSession:
    """From the first request of a session on."""

    def __init__(
        self, message: SiteMessage, federation: Federation, agreement: dict[str, str], account: SiteAccount
    ) -> None:
        """
        Args:
            message: with the session and the number of registered clients.
            federation: the site's.
            agreement: what server and site have in common.
            account: of the site's people.

        Raises:
            MessageError: the message lacks one of them.
            ConfigurationError: the run doesn't keep what privacy promises.
        """
        self.id = session_of(message)
        registered, clients = message.get("registered", int), list(federation.data.clients)
        if not len(clients) <= registered <= MOST_REGISTERED:
            raise MessageError(
                f"{message.kind}: expected {len(clients)} to {MOST_REGISTERED} registered clients, got {registered}"
            )
        # Of clients elsewhere nothing but their number is known.
        self._people = clients
        names = [*clients, *(f"\0{number}" for number in range(len(clients), registered))]
        private = rounds_of(federation.privacy, federation.aggregation_task(names, self.id))
        assert isinstance(private, PrivateRounds)  # its privacy was checked at the start
        self.private = private
        self._joined, self._account = federation.run_dir / JOINED, account
        self.last_round = self._newest_joined()
        privacy, noised = self.private.privacy, self.private.ledger is not None
        self._terms = SiteRun(
            account.server, hashlib.sha256(json.dumps(agreement, sort_keys=True).encode()).hexdigest(),
            self.private.ledger.noise_multiplier if self.private.ledger is not None else None,
            sampler.rate if isinstance(sampler := federation.cohort, PoissonCohort) else None,
            privacy.delta if noised else None, federation.rounds,
        )  # fmt: skip
        self._budget = SiteBudget(
            privacy.budget if account.epsilon is None else account.epsilon,
            federation.rounds + RETAKEN if account.rounds is None else account.rounds,
            privacy.accountant,
        )

    def refusal(self, client: str, number: int) -> str | None:
        """Why a client may not give in a round, if it may not."""
        return self._account.ledger.refusal(self._terms, self.id.hex(), number, client, self._budget)

    def join(self, number: int) -> None:
        """Write down that a round was joined, before any answer to it leaves."""
        write_json(self._joined, {"session": self.id.hex(), "round": number})

    def give(self, clients: Iterable[str], number: int) -> None:
        """Write down what clients give in a round, before it leaves.

        Raises:
            ParticipationRefused: another run of the site has spent what was left meanwhile; nothing may leave.
            OutputError: it could not be written; nothing may leave.
        """
        self._account.ledger.take(self._terms, self.id.hex(), number, clients, self._people, self._budget)

    def _newest_joined(self) -> int:
        """The newest round of this session that was joined before this process was started."""
        if not self._joined.exists():
            return -1
        try:
            saved: dict[str, Any] = json.loads(self._joined.read_text(encoding="utf-8"))
            return int(saved["round"]) if saved["session"] == self.id.hex() else -1
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{self._joined} can't be read ({type(error).__name__}); remove it") from error


def session_of(message: SiteMessage) -> bytes:
    """The session that a message names.

    Raises:
        MessageError: none.
    """
    text = message.get("session", str)
    try:
        session = bytes.fromhex(text)
    except ValueError:
        session = b""
    if len(session) != SESSION_BYTES:
        raise MessageError(
            f"{message.kind}: expected a session of {SESSION_BYTES} bytes in hexadecimal, got {text!r:.80}"
        )
    return session
