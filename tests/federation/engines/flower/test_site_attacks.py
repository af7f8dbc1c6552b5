"""What one client, one site or one server may try, and what it comes to: it costs itself, and is told."""

from __future__ import annotations

import pytest

from fedtalk.callbacks import ISFA, FedAvg
from fedtalk.errors import ConfigurationError, FedTalkError, OutputError
from fedtalk.federation.engines import in_process
from fedtalk.federation.engines.flower.agreement import _object
from fedtalk.federation.engines.flower.messages import STATE, SiteMessage
from fedtalk.federation.engines.flower.site import Site
from fedtalk.federation.engines.flower.site_session import SiteAccount
from fedtalk.federation.engines.in_process import InProcess
from fedtalk.federation.local_work import weigh
from fedtalk.federation.server import ServerOptimizer
from fedtalk.planning.preconditions import check_apart, check_placements
from fedtalk.privacy.private_round import ClientEncoding
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.secagg.messages import RevealRequest, Roster, ShareDelivery
from fedtalk.privacy.settings import Privacy
from fedtalk.privacy.site_ledger import RETAKEN, SiteBudget, SiteLedger
from fedtalk.training.placement import Placement, Placements


def test_sites_cant_tell_who_took_part_from_one_round_to_the_next(federation, people, sealed) -> None:
    """As the site did that put all rosters together: names of others' clients, or numbers that are met again."""
    transport = federation.transport(federation.split(people), sealed)
    federation.over_sites(transport, sealed)
    seen: dict[int, set[int]] = {0: set(), 1: set()}
    for site, request, _ in transport.passed:
        foreign = {name for other, own in federation.split(people).items() if other != site for name in own}
        assert not any(name.encode() in request.encode() for name in foreign)
        if request.kind in ("shares", "input", "reveal"):
            for part in request.parts.values():
                seen[request.fields["round"]] |= _ids_in(request.kind, part)
    assert all(len(ids) == 4 for ids in seen.values()) and not seen[0] & seen[1]
    assert min(seen[0] | seen[1]) > 1000  # numbers of 32 bits, drawn


def _ids_in(kind: str, part: bytes) -> set[int]:
    if kind == "shares":
        roster = Roster.decode(part)
        return {roster.client, *roster.neighbour_keys}
    if kind == "input":
        return set(ShareDelivery.decode(part).envelopes)
    request = RevealRequest.decode(part)
    return {*request.survivors, *request.dropped}


@pytest.mark.parametrize("where", ["weighing", "encoding", "asking for another step"])
def test_one_clients_trouble_is_its_own(federation, people, sealed, monkeypatch, where: str) -> None:
    """East has two people; one of them can't take the other one out of the sum, at whichever step."""
    name = sorted(people)[2]
    transport = federation.transport(federation.split(people), sealed)
    east = transport.sites["east"]
    if where == "weighing":
        monkeypatch.setattr(
            in_process, "weigh", lambda r, *rest: _out_of_memory() if r.report.client == name else weigh(r, *rest)
        )
    elif where == "encoding":
        encode = ClientEncoding.elements
        monkeypatch.setattr(
            ClientEncoding, "elements", lambda self, c, *rest: _out_of_memory() if c == name else encode(self, c, *rest)
        )
    else:
        _take_away(east, "_input", name)
    trainer, got = federation.over_sites(transport, sealed)
    assert trainer.fit_rounds.faults.last_failures == {name: "dropped out"}
    assert (
        trainer.fit_rounds.faults.updated_rounds == 2 and max(float(value.abs().max()) for value in got.values()) > 0.05
    )


def _out_of_memory():
    raise MemoryError


def _take_away(site, step: str, client: str) -> None:
    """Have a client lose its place in the round before a step."""
    kind = step.removeprefix("_")
    handler = site._handlers[kind]

    def without(message):
        site._taking.pop(client, None)
        return handler(message)

    site._handlers[kind] = without


class Two(InProcess):
    """As an engine of two processes says of itself."""

    isolates, at_once = True, 2


def test_each_client_has_its_slot_whatever_the_others_do(federation, people, sealed) -> None:
    """Of the server's 1000 s east's two people have 450 s each, and their own deadline where that is shorter."""
    transport, deadlines = federation.transport(federation.split(people), sealed), {}
    for name, site in transport.sites.items():
        updates = site._engine.updates

        def noted(*asked, name=name, site=site, updates=updates):
            deadlines[name] = site._engine.federation.local.deadline_seconds
            return updates(*asked)

        site._engine.updates = noted
    federation.over_sites(transport, sealed)
    assert deadlines == pytest.approx({"north": 900.0, "south": 900.0, "east": 450.0})
    assert all(site._engine.federation.local.deadline_seconds is None for site in transport.sites.values())
    east = transport.sites["east"]
    message = SiteMessage("train", {"seconds": 100.0})
    assert east._slot(message, 2) == pytest.approx(45.0)
    east._engine, east._start_seconds = Two(), 10.0
    assert east._slot(message, 2) == pytest.approx(70.0) and east._slot(message, 3) == pytest.approx(25.0)
    with pytest.raises(FedTalkError, match=r"flower\.training_seconds: expected time for 9 clients, 2 at once"):
        east._slot(message, 9)


def test_with_noise_clients_of_a_site_are_in_processes_of_their_own(federation, people) -> None:
    privacy = Privacy(assumptions=Assumptions(0.0, 0.3), noise_multiplier=0.7, delta=1e-2)
    of_site = federation.trainer("north", privacy).connect(
        federation._colours(), federation._colour_data(people), "fit"
    )
    account = SiteAccount(federation.folder, "a server")
    with pytest.raises(ConfigurationError, match=r"trainer\.workers: with noise .* 4 clients train in one process"):
        Site(of_site, InProcess(), account, lambda: None)


def test_with_noise_no_clients_train_in_one_batch(federation, people) -> None:
    def check(privacy: Privacy, **placed: object) -> None:
        trainer = federation.trainer("x", privacy, **placed)
        check_placements(trainer.federate(federation._colours(), federation._colour_data(people)))

    for placed in ({"default_placement": Placement(together=2)}, {"placements": {"a*": Placement(together=4)}}):
        with pytest.raises(ConfigurationError, match="one client more or less changes more than one vector"):
            check(Privacy(noise_multiplier=0.7, delta=1e-2), **placed)
    check_apart(Privacy(), Placements(Placement(together=2), {}))


def test_a_sites_people_give_no_more_than_their_site_allows(federation, people, sealed) -> None:
    """As a server did that took 24 rounds of a run of 2: new sessions over and over, each from round 0 on."""
    transport = federation.transport(federation.split(people), sealed)
    rounds = []
    for number in range(3):
        trainer, _ = federation.over_sites(transport, sealed, folder=f"server{number}")
        rounds.append(trainer.fit_rounds.faults.updated_rounds)
    assert rounds == [2, 2, 1]  # 2 agreed on and 3 more
    with pytest.raises(FedTalkError, match="none of the 2 rounds gave an update"):
        federation.over_sites(transport, sealed, folder="server3")
    for name, site in transport.sites.items():
        ledger = SiteLedger(federation.folder / f"ledger_{name}")
        assert {ledger.spent(person).rounds for person in site.data.clients} == {5}
        fresh = federation.site(name, federation.split(people)[name], sealed)  # a restart forgets nothing
        assert "has given in 5 rounds" in fresh._account.ledger.refusal(
            ledger.runs[0], "ab", 0, site.data.clients[0], SiteBudget(None, 5)
        )


def test_what_a_person_gives_is_written_down_before_it_leaves(federation, people, sealed, monkeypatch) -> None:
    transport = federation.transport(federation.split(people), sealed)

    def full(*_: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(transport.sites["north"]._account.ledger, "take", full)
    trainer, _ = federation.over_sites(transport, sealed)
    assert trainer.fit_rounds.faults.last_failures == {sorted(people)[0]: "dropped out"}
    answers = [answer for site, request, answer in transport.passed if (site, request.kind) == ("north", "input")]
    assert answers and all(answer.kind == "refused" for answer in answers)


def test_it_is_written_down_against_the_budget_and_for_all_who_could_have_been_drawn(
    federation, people, sealed, monkeypatch
) -> None:
    transport = federation.transport(federation.split(people), sealed)
    ledger, written = transport.sites["north"]._account.ledger, []
    take = ledger.take

    def watched(terms, session, number, clients, registered, budget) -> None:
        written.append((list(clients), list(registered), budget.rounds))
        take(terms, session, number, clients, registered, budget)

    monkeypatch.setattr(ledger, "take", watched)
    federation.over_sites(transport, sealed)
    names = transport.sites["north"].data.clients
    assert written == [([name], names, 2 + RETAKEN) for _ in range(2) for name in names]


GARBAGE = [
    b"", b"garbage", b"fedtalk1" + (200_000).to_bytes(4, "big") + b"[" * 200_000,
    SiteMessage("answer", {"round": 0}, {"nobody": b"x", STATE: b"x"}).encode(), SiteMessage("answer", {"round": "0"}).encode(),
    SiteMessage("refused", {"why": ["x"]}).encode(), SiteMessage("refused", {"why": "x" * 10**7}).encode(),
    SiteMessage("train", {"round": 0}).encode(), b"fedtalk1" + (20).to_bytes(4, "big") + b'["answer",{},{"\\ud800":0}]',
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_of_a_site_never_ends_the_run(federation, people, sealed, garbage: bytes) -> None:
    transport = federation.transport(federation.split(people), sealed)
    transport.spoil = lambda site, request, answer: (
        garbage if site == "north" and request.kind != "hello" and request.fields.get("round") != 0 else answer
    )
    trainer, _ = federation.over_sites(transport, sealed)
    assert trainer.round_number == 2 and trainer.fit_rounds.faults.updated_rounds == 2
    assert trainer.fit_rounds.faults.last_failures == {sorted(people)[0]: "dropped out"}
    transport = federation.transport(federation.split(people), sealed)
    transport.spoil = lambda site, request, answer: garbage if site == "north" else answer
    with pytest.raises(ConfigurationError, match="site north: "):
        federation.over_sites(transport, sealed, folder="other")


def test_two_aggregations_of_other_class_or_fields_are_told_apart() -> None:
    made = [
        ISFA(), ISFA(gamma=0.0), FedAvg(), ISFA(server_optimizer=ServerOptimizer(learning_rate=0.5)), ISFA(alpha=0.5),
        type("Mine", (ISFA,), {})(),
    ]  # fmt: skip
    assert len({_object(aggregation) for aggregation in made}) == len(made) and _object(ISFA()) == _object(ISFA())
