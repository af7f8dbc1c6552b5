"""Who says what: forged, swapped, recorded and altered requests and answers are refused, counted and named."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtalk.federation.engines.flower.messages import SiteMessage
from fedtalk.federation.engines.flower.signing import SignedAnswers, SignedTransport
from fedtalk.federation.engines.flower.transport import Transport

SERVER, NORTH, SOUTH, OUTSIDER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(4))
KEYS = {"north": NORTH.public_key(), "south": SOUTH.public_key()}
HELLO = SiteMessage("hello", {"agreement": {}}).encode()


class Wire(Transport):
    """Carries bytes between sites of this process; ``answers`` may take a site's place."""

    def __init__(self) -> None:
        self.sites = {
            name: SignedAnswers(
                lambda request, name=name: SiteMessage("answer", {"clients": [name]}).encode(), key, SERVER.public_key()
            )
            for name, key in (("north", NORTH), ("south", SOUTH))
        }  # fmt: skip
        self.asked: dict[str, bytes] = {}
        self.answered: dict[str, bytes] = {}
        self.answers = dict(self.sites)

    def connected(self) -> list[str]:
        return list(self.sites)

    def ask(self, requests, seconds, check) -> dict[str, bytes]:
        self.asked = dict(requests)
        self.answered = {site: self.answers[site](request) for site, request in requests.items()}
        return self.answered


def ask(wire: Wire, key: ec.EllipticCurvePrivateKey = SERVER) -> tuple[dict[str, SiteMessage], SignedTransport]:
    transport = SignedTransport(wire, key, KEYS)
    answers = transport.ask({"north": HELLO, "south": HELLO}, 1.0, lambda: None)
    return {site: SiteMessage.decode(answer) for site, answer in answers.items()}, transport


def test_signed_by_whom_it_should_be_it_passes() -> None:
    answers, transport = ask(Wire())
    assert {site: answer.fields["clients"] for site, answer in answers.items()} == {
        "north": ["north"],
        "south": ["south"],
    }
    assert not transport.refused


def test_a_site_that_answers_for_another_is_refused_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """As south did that pulled north's message by its id: with its own key, with none, with the plain answer."""
    forged = SiteMessage("answer", {"clients": ["forged"]}).encode()
    for impostor in (
        SignedAnswers(lambda _: forged, SOUTH, SERVER.public_key()),
        SignedAnswers(lambda _: forged, OUTSIDER, SERVER.public_key()),
        lambda _: forged,
        lambda _: b"",
    ):
        wire = Wire()
        wire.answers["north"] = impostor
        answers, transport = ask(wire)
        assert list(answers) == ["south"] and transport.refused == {"north": 1}
        assert "in the name of site north is not signed by it" in caplog.text


def test_what_was_signed_once_is_no_answer_to_anything_else() -> None:
    """Neither another site's answer, nor an earlier one of the same site to the very same words."""
    wire = Wire()
    ask(wire)
    earlier = wire.answered["north"]
    wire.answers["north"] = lambda _: earlier
    answers, transport = ask(wire)
    assert list(answers) == ["south"] and transport.refused == {"north": 1}
    wire.answers["north"] = lambda request: wire.sites["south"](wire.asked["south"])
    assert list(ask(wire)[0]) == []  # and the request to south has been used up


def test_no_two_requests_are_alike() -> None:
    """A message's id at the SuperLink is a hash of its content: nobody can guess it."""
    first, second = Wire(), Wire()
    ask(first)
    ask(second)
    seen = {wire.asked[site] for wire in (first, second) for site in wire.asked}
    assert len(seen) == 4 and len({request[-len(HELLO) - 32 : -len(HELLO)] for request in seen}) == 4


def test_a_site_does_nothing_that_its_server_has_not_signed_for_it() -> None:
    done: list[bytes] = []

    def answer(request: bytes) -> bytes:
        done.append(request)
        return SiteMessage("answer").encode()

    site = SignedAnswers(answer, NORTH, SERVER.public_key())
    wire = Wire()
    ask(wire)
    site(wire.asked["north"])
    assert done == [HELLO]
    site(wire.asked["north"])  # played back
    site(wire.asked["south"])  # meant for another site
    ask(wire, OUTSIDER)
    site(wire.asked["north"])  # another server's
    site(HELLO)  # nobody's
    assert done == [HELLO] and site.refused == 4


def test_a_server_with_another_key_than_the_site_knows_is_told() -> None:
    answers, transport = ask(Wire(), OUTSIDER)
    assert not transport.refused and all("flower.server" in answer.why for answer in answers.values())


SHARES = st.floats(0, 1, exclude_max=True)


@given(SHARES, st.integers(1, 255), st.just(1.0) | SHARES, st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_spoilt_bytes_are_refused_on_both_sides(place: float, change: int, left: float, garbage: bytes) -> None:
    def spoil(whole: bytes) -> bytes:
        spoilt = bytearray(whole)
        spoilt[int(place * len(spoilt))] ^= change
        return bytes(spoilt[: int(left * len(spoilt))])

    wire, done = Wire(), list[bytes]()
    ask(wire)
    site = SignedAnswers(lambda request: done.append(request) or HELLO, NORTH, SERVER.public_key())
    site(spoil(wire.asked["north"]))
    site(garbage)
    assert not done and site.refused == 2
    wire.answers["north"] = lambda request: spoil(wire.sites["north"](request))
    assert list(ask(wire)[0]) == ["south"]
    wire.answers["north"] = lambda request: garbage
    assert list(ask(wire)[0]) == ["south"]
