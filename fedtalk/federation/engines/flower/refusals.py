"""What a site refuses, and how much of a refusal the server hears."""

from __future__ import annotations

from fedtalk.errors import ConfigurationError, FedTalkError
from fedtalk.federation.engines.flower.messages import MessageError
from fedtalk.privacy.participation import ParticipationRefused
from fedtalk.privacy.secagg import RefusedMessage


class SiteRefusal(FedTalkError):
    """A request that a site doesn't act on; the server is told why."""


TOLD = (SiteRefusal, MessageError, RefusedMessage, ParticipationRefused, ConfigurationError)
"""Errors whose words are about requests and settings. What else goes wrong may tell about clips: it stays in the site's log."""


def told(why: object) -> str:
    """What the server hears of a refusal."""
    return str(why) if isinstance(why, TOLD) else "an error at the site; its own log says which"
