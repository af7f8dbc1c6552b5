"""What carries the messages, whatever it is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping


class Transport(ABC):
    """Carries requests to sites and their answers back."""

    @abstractmethod
    def connected(self) -> list[str]:
        """Sites that can be reached, by name."""

    @abstractmethod
    def ask(self, requests: Mapping[str, bytes], seconds: float, check: Callable[[], None]) -> dict[str, bytes]:
        """Send each site its request; the answers that came within ``seconds``.

        Args:
            requests: by site; a site that can't be reached gives no answer.
            seconds: to wait, at most.
            check: called while waiting; may raise to stop.
        """
