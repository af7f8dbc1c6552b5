"""What a client refuses: requests that would open its vector, or cost it the graph's promise."""

from __future__ import annotations

from collections.abc import Set

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.secagg import messages
from fedtalk.privacy.secagg.errors import RefusedMessage
from fedtalk.privacy.secagg.graph import GraphChoice
from fedtalk.privacy.secagg.settings import AggregationSettings

LARGEST_COHORT = 2**20
"""Above it a count isn't believed: the graph's bounds are computed from it, and take their time."""


def checked_roster(
    message: messages.Roster, settings: AggregationSettings, own: int, own_keys: Set[bytes]
) -> GraphChoice:
    """The graph's choice, if the roster is in order.

    Args:
        message: the server's.
        settings: the client's own.
        own: the client's id.
        own_keys: its public keys.

    Raises:
        RefusedMessage: it isn't.
    """
    count = message.count
    if count > LARGEST_COHORT:
        raise RefusedMessage(f"roster: expected at most {LARGEST_COHORT} clients, got {count}")
    if count < settings.survivors_needed(count):
        raise RefusedMessage(
            f"roster: expected at least {settings.survivors_needed(count)} clients, got {count}; too few to hide in"
        )
    try:
        choice = settings.graph(count)
    except ConfigurationError as error:
        raise RefusedMessage(f"roster refused: {error}") from error
    if len(message.neighbour_keys) != choice.degree or own in message.neighbour_keys:
        raise RefusedMessage(
            f"roster: expected the keys of {choice.degree} neighbours of client {own} among {count}, got "
            f"{len(message.neighbour_keys)}, of {list(message.neighbour_keys)[:8]}…"
        )
    if len(message.masking) != choice.mask_degree or not message.neighbour_keys.keys() >= set(message.masking):
        raise RefusedMessage(
            f"roster: expected masks with {choice.mask_degree} of the {choice.degree} neighbours of client {own}, got "
            f"{len(message.masking)}, with {list(message.masking)[:8]}…"
        )
    used = set(own_keys)
    for peer, pair in message.neighbour_keys.items():
        if used.intersection(pair) or pair[0] == pair[1]:
            raise RefusedMessage(f"roster: expected fresh public keys of client {peer}, got one that is used twice")
        used.update(pair)
    return choice


def checked_request(
    message: messages.RevealRequest,
    settings: AggregationSettings,
    own: int,
    choice: GraphChoice,
    near: Set[int],
    silent: Set[int],
    masking: Set[int],
) -> set[int]:
    """The surviving neighbours, if the request is in order.

    Args:
        message: the server's.
        settings: the client's own.
        own: the client's id.
        choice: its graph.
        near: neighbours that shared.
        silent: neighbours that never did.
        masking: neighbours that shared and with whom it has masks.

    Raises:
        RefusedMessage: it isn't.
    """
    needed = settings.survivors_needed(choice.clients)
    survivors, dropped, known = set(message.survivors), set(message.dropped), near | silent
    both = sorted(survivors & dropped)
    if both:
        raise RefusedMessage(
            f"request: expected each client to have survived or dropped out, got both for {both[:8]}; both "
            "kinds of share would open their vectors"
        )
    forged = sorted((survivors | dropped) - known)
    if forged:
        raise RefusedMessage(f"request: expected neighbours of client {own} only, got {forged[:8]} besides")
    fewest, whole = len(survivors) + 1, choice.degree == choice.clients - 1
    if not fewest <= message.count <= (fewest if whole else choice.clients - len(dropped)):
        raise RefusedMessage(
            f"request: expected as many survivors as its lists allow, got {message.count} with {fewest - 1} beside client "
            f"{own} and {len(dropped)} dropped, of {choice.clients} with {choice.degree} neighbours each"
        )
    if message.count < needed:
        raise RefusedMessage(f"request: expected at least {needed} survivors, got {message.count}; too few to hide in")
    missing = sorted(near - survivors - dropped)
    if missing:
        raise RefusedMessage(f"request: expected every neighbour in one of its lists, got none with {missing[:8]}")
    unshared = sorted(silent & (survivors | dropped))
    if unshared:
        raise RefusedMessage(
            f"request: expected no word of the neighbours that never shared, got {unshared[:8]}; it does "
            "not fit the delivery"
        )
    alive = len(near & survivors)
    if alive < choice.threshold:
        raise RefusedMessage(f"request: expected at least {choice.threshold} surviving neighbours, got {alive}")
    hiding = len(masking & survivors)
    if hiding < choice.mask_threshold:
        raise RefusedMessage(
            f"request: expected at least {choice.mask_threshold} survivors that have masks with client {own}, got {hiding}; "
            "its vector would stand out of the sum"
        )
    return survivors
