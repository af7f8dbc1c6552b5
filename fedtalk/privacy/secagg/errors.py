"""What can go wrong in a round of secure aggregation, on either side; every case is a refusal, never a wrong sum."""

from __future__ import annotations

from fedtalk.errors import FedTalkError


class SecureAggregationError(FedTalkError):
    """Base of the errors of the protocol."""


class RefusedMessage(SecureAggregationError):
    """A message was not acted on: it breaks the protocol, comes at the wrong time or asks for too much.

    The state that refused it is unchanged and has revealed nothing: a correct message can still follow.
    """


class MalformedMessage(RefusedMessage):
    """The bytes are not a message of this protocol version: cut short, too long, wrong version, kind or encoding."""


class AbortedRound(SecureAggregationError):
    """The server can't finish the round: too few clients are left, or shares are missing or don't fit together.

    No sum and no part of one was released; the next round starts afresh.
    """


class InvalidInput(SecureAggregationError, ValueError):
    """A vector given to a client has the wrong shape or type, or a value outside the ring."""
