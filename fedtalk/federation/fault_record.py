"""When failures of clients are the run's own: one client's trouble is its own, everybody's is the configuration's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedtalk.errors import ConfigurationError, FedTalkError

SHOWN = 3
"""Failures that an error message quotes."""


@dataclass
class FaultRecord:
    """What came of the rounds so far, over all the processes that a run went on in."""

    updates: int = 0
    """Updates that clients gave."""
    updated_rounds: int = 0
    """Rounds whose updates moved the global state."""
    last_failures: dict[str, str] = field(default_factory=dict)
    """Clients of the latest round that had failures, each with its error's kind and message (and not the error itself,
    whose traceback would keep the memory of the failed step)."""

    def note(
        self, round_number: int, updates: int, updated: bool, failures: Mapping[str, str], registered: int
    ) -> None:
        """Take down one round.

        Args:
            round_number: for the message.
            updates: how many clients gave one.
            updated: whether they were enough for the round to move the global state.
            failures: lost clients and why, as ``Kind: message``.
            registered: clients of the run.

        Raises:
            ConfigurationError: no client has ever given an update, and all of at least two in this round (or the only one
                there is) say that the configuration is wrong. More rounds would only say it again.
        """
        self.updates += updates
        self.updated_rounds += updated
        if failures:
            self.last_failures = dict(failures)
        blamed = ConfigurationError.__name__
        if (
            not self.updates
            and len(failures) >= min(2, registered)
            and all(failure.startswith(f"{blamed}: ") for failure in failures.values())
        ):
            raise ConfigurationError(
                f"no client can train with this configuration; in round {round_number} "
                + _quote({client: failure.removeprefix(f"{blamed}: ") for client, failure in failures.items()})
            )

    def close(self, rounds: int) -> None:
        """End of the fit.

        Raises:
            FedTalkError: clients failed and no round gave an update, so that the adapter is the one the run began with.
        """
        if self.last_failures and not self.updated_rounds:
            raise FedTalkError(
                f"none of the {rounds} rounds gave an update, nothing was learned; expected at least one. The last clients "
                f"to fail: {_quote(self.last_failures)}. Mend what they name, then fit again without --ckpt_path."
            )


def _quote(failures: Mapping[str, str]) -> str:
    shown = "; ".join(f"{client}: {failure}" for client, failure in list(failures.items())[:SHOWN])
    return shown + (f"; and {len(failures) - SHOWN} more" if len(failures) > SHOWN else "")
