"""Messages over Flower's Grid: one bytes value in a record, to the nodes that the server itself registered."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedtalk.federation.engines.flower.transport import Transport

log = logging.getLogger("fedtalk")

RECORD, VALUE = "fedtalk", "message"
MESSAGE_TYPE = "query"
POLL_SECONDS = 0.25
ONLINE_SECONDS = 3.0
"""How often it is looked up who is still connected."""


def pack(data: bytes) -> RecordDict:
    """Bytes as the content of a message."""
    return RecordDict({RECORD: ConfigRecord({VALUE: data})})


def unpack(content: RecordDict) -> bytes:
    """The bytes in a message's content; none where it has none."""
    value = content.config_records[RECORD].get(VALUE) if RECORD in content.config_records else None
    return value if isinstance(value, bytes) else b""


class GridTransport(Transport):
    """Sites by the names of their registered keys."""

    def __init__(self, grid: Grid, node_of: Mapping[str, int]) -> None:
        """
        Args:
            grid: of the run.
            node_of: the node that each site's key was registered as; other nodes are never spoken to.
        """
        self._grid, self._node_of = grid, dict(node_of)

    def connected(self) -> list[str]:
        online = set(self._grid.get_node_ids())
        return [site for site, node in self._node_of.items() if node in online]

    def ask(self, requests: Mapping[str, bytes], seconds: float, check: Callable[[], None]) -> dict[str, bytes]:
        end = time.monotonic() + seconds
        reachable = set(self.connected())
        waiting: dict[str, str] = {}
        messages = [
            (site, Message(pack(data), self._node_of[site], MESSAGE_TYPE, ttl=seconds))
            for site, data in requests.items()
            if site in reachable
        ]
        for site in sorted(requests.keys() - reachable):
            log.warning("site %s is not connected", site)
        for (site, _), message_id in zip(
            messages, self._grid.push_messages([message for _, message in messages]), strict=True
        ):
            if message_id:
                waiting[message_id] = site
        answers: dict[str, bytes] = {}
        looked = time.monotonic()
        while waiting and time.monotonic() < end:
            check()
            for reply in self._grid.pull_messages(list(waiting)):
                asked = reply.metadata.reply_to_message_id
                if asked not in waiting:
                    continue
                site = waiting.pop(asked)
                if reply.has_error():
                    log.warning("site %s could not be asked: %s", site, reply.error.reason)
                elif reply.metadata.src_node_id == self._node_of[site]:
                    answers[site] = unpack(reply.content)
            if waiting and time.monotonic() - looked > ONLINE_SECONDS:
                looked, reachable = time.monotonic(), set(self.connected())
                for message_id, site in list(waiting.items()):
                    if site not in reachable:
                        log.warning("site %s is gone", site)
                        del waiting[message_id]
            if waiting:
                time.sleep(POLL_SECONDS)
        for site in waiting.values():
            log.warning("site %s gave no answer within %g s", site, seconds)
        return answers
