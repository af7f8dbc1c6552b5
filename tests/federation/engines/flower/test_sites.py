"""Server and sites with bytes between them: the in-process result to the bit, failures at every step, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedtalk.callbacks.aggregation import ISFA, FedAvg
from fedtalk.errors import ConfigurationError, FedTalkError, OutputError
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.federation.engines.flower.engine import FlowerEngine, gather
from fedtalk.federation.engines.flower.messages import STATE, SiteMessage
from fedtalk.federation.engines.flower.roster import SiteClients
from fedtalk.federation.engines.in_process import InProcess
from fedtalk.privacy.clipping import AdaptiveClipping
from fedtalk.privacy.secagg import Assumptions, InvalidInput
from fedtalk.privacy.secagg.packing import packed_bytes
from fedtalk.privacy.secagg.words import Words
from fedtalk.privacy.settings import Privacy
from fedtalk.training.local import LocalTraining


def _equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def test_over_sites_is_in_process_to_the_bit(federation, people, sealed) -> None:
    transport = federation.transport(federation.split(people), sealed)
    _, got = federation.over_sites(transport, sealed)
    expected = federation.in_process(people, sealed)
    assert _equal(got, expected) and max(float(value.abs().max()) for value in got.values()) > 0.05
    assert all(_equal(site.final_state, got) for site in transport.sites.values())


@pytest.mark.parametrize("where", ["central", "distributed"])
def test_with_noise_too_once_its_seed_is_given(federation, people, where: str) -> None:
    """Both halves of the noise, and the adaptive bound that follows from the sums, are the in-process engine's."""
    crowd = {f"{name}{n}": people[name] for n in range(3) for name in people}
    privacy = Privacy(
        clip_norm=5.0, assumptions=Assumptions(0.0, 0.3), noise_multiplier=0.7, delta=1e-2, accountant="rdp", where=where,
        adaptive_clipping=AdaptiveClipping(rate=1.0), insecure_noise_seed=5,
    )  # fmt: skip
    trainer, got = federation.over_sites(federation.transport(federation.split(crowd), privacy), privacy)
    assert _equal(got, federation.in_process(crowd, privacy))
    assert trainer.fit_rounds.sealed.ledger.rounds == 2
    assert trainer.fit_rounds.sealed.clip_norm != 5.0


@pytest.mark.parametrize("what", ["request", "answer"])
@pytest.mark.parametrize("kind", ["train", "shares", "input"])
def test_a_site_lost_at_any_step_is_a_client_that_failed(federation, people, sealed, kind: str, what: str) -> None:
    transport = federation.transport(federation.split(people), sealed)
    transport.lost = lambda site, request: (
        what if (site, request.kind) == ("north", kind) and request.fields["round"] == 1 else None
    )
    trainer, got = federation.over_sites(transport, sealed)
    assert _equal(got, federation.in_process(people, sealed, engine=_Failing(sorted(people)[0], 1)))
    assert not _equal(got, federation.in_process(people, sealed, folder="whole"))
    assert trainer.fit_rounds.faults.last_failures == {sorted(people)[0]: "dropped out"}


class _Failing(InProcess):
    """In process, with one client that fails in one round."""

    def __init__(self, client: str, number: int) -> None:
        self._which = client, number

    def start(self, federation, check_stop) -> None:
        super().start(federation, check_stop)
        work = self.clients.work

        def failing(client, asked, state, on_step):
            if (client, asked.round_number) == self._which:
                raise OSError("gone")
            return work(client, asked, state, on_step)

        self.clients.work = failing


def test_after_its_input_a_site_is_no_longer_needed(federation, people, sealed) -> None:
    transport = federation.transport(federation.split(people), sealed)
    transport.lost = lambda site, request: "request" if (site, request.kind) == ("north", "reveal") else None
    assert _equal(federation.over_sites(transport, sealed)[1], federation.in_process(people, sealed))


def test_too_few_left_cost_the_round_and_never_the_run(federation, people, sealed) -> None:
    """East is two of four: with it gone in round 0, that round is void, and the next one counts."""
    transport = federation.transport(federation.split(people), sealed)
    transport.lost = lambda site, request: "request" if site == "east" and request.fields.get("round") == 0 else None
    trainer, got = federation.over_sites(transport, sealed)
    assert trainer.fit_rounds.faults.updated_rounds == 1 and trainer.round_number == 2
    assert max(float(value.abs().max()) for value in got.values()) > 0.05
    asked = [
        request.kind for site, request, _ in transport.passed if request.fields.get("round") == 0 and site == "north"
    ]
    assert asked == ["train"]  # nobody is asked for shares of a round that can't be finished


def test_clip_trouble_stays_at_the_site(federation, people, sealed, caplog: pytest.LogCaptureFixture) -> None:
    name = sorted(people)[0]
    broken = {**people, name: replace(people[name], failure=OSError("secret of the clips"))}
    transport = federation.transport(federation.split(broken), sealed)
    federation.over_sites(transport, sealed)
    assert "secret of the clips" in caplog.text  # in the site's own log
    assert not any(b"secret" in answer.encode() for _, _, answer in transport.passed if answer is not None)


def test_what_leaves_a_site_is_the_protocols_and_of_the_protocols_length(federation, people, sealed) -> None:
    """Names once, then keys, shares, masked vectors and revealed shares: no loss, score or count of clips is among it."""
    transport = federation.transport(federation.split(people), sealed)
    trainer, _ = federation.over_sites(transport, sealed)
    masked = set()
    for _, request, answer in transport.passed:
        assert set(answer.fields) == (
            {"clients"} if request.kind == "hello" else set() if request.kind == "finish" else {"round"}
        )
        if request.kind == "input":
            masked |= {len(part) for part in answer.parts.values()}
    words = Words(10, trainer.fit_rounds.sealed.settings.bits)  # nine coordinates and the weight
    assert masked == {32 + packed_bytes(words.count, words.width)}  # behind a header of 32 bytes


def test_a_run_goes_on_after_the_server_was_started_again(federation, people, sealed) -> None:
    transport = federation.transport(federation.split(people), sealed)
    federation.over_sites(transport, sealed, rounds=2)
    for site in transport.sites.values():
        longer = replace(site.federation, rounds=3)
        site.__init__(longer, site._engine, site._account, lambda: None)  # started again, with a longer run
    _, got = federation.over_sites(transport, sealed, ckpt_path="last", rounds=3)
    assert _equal(got, federation.in_process(people, sealed, rounds=3))


# What a site refuses


def _request(site, kind: str, number: int, parts: dict, **fields: object) -> SiteMessage:
    fields = {"session": site._session.id.hex(), "round": number, **fields}
    return SiteMessage.decode(site.answer(SiteMessage(kind, fields, parts).encode()))


def test_a_site_refuses_what_no_honest_server_sends(federation, people, sealed) -> None:
    transport = federation.transport(federation.split(people), sealed)
    federation.over_sites(transport, sealed, rounds=2)
    site = transport.sites["north"]
    client, stranger = sorted(people)[:2]
    of_round = {request.kind: request for name, request, _ in transport.passed if name == "north"}
    refused = lambda message: message.kind == "refused" and message.fields["why"]  # noqa: E731

    again = refused(SiteMessage.decode(site.answer(of_round["train"].encode())))
    assert "expected a round after 1, got 1" in again  # replayed: trained, masked and revealed once only
    for kind in ("shares", "input", "reveal"):
        assert refused(SiteMessage.decode(site.answer(of_round[kind].encode())))
        assert "expected round 1" in refused(_request(site, kind, 7, {client: b""}))
        assert stranger in refused(_request(site, kind, 1, {stranger: b""}))
    other = replace(of_round["train"], parts={STATE: of_round["train"].parts[STATE], stranger: b""})
    assert stranger in refused(SiteMessage.decode(site.answer(other.encode())))
    assert "this model" in refused(
        SiteMessage.decode(site.answer(replace(of_round["train"], parts={STATE: _state(4)}).encode()))
    )
    past = replace(of_round["train"], fields={**of_round["train"].fields, "round": 2})
    assert "round 2 of 2 that were agreed on" in refused(SiteMessage.decode(site.answer(past.encode())))
    for name, wrong in (("session", "zz"), ("session", "00"), ("registered", 10**12), ("registered", 0), ("seconds", 0.0),
                        ("clip_norm", 1e999), ("seconds", "1"), ("round", "1")):  # fmt: skip
        fields = {**of_round["train"].fields, "session": "11" * 16, name: wrong}
        assert refused(SiteMessage.decode(site.answer(replace(of_round["train"], fields=fields).encode())))
    assert refused(SiteMessage.decode(site.answer(b"garbage"))) and refused(
        SiteMessage.decode(site.answer(SiteMessage("answer").encode()))
    )


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConfigurationError("trainer.rounds: expected 2"), True),
        (OutputError("/home/anna/clips/secret.npz can't be written"), False),
        (InvalidInput("vector of client 3: expected below 2**20, got a secret maximum"), False),
        (RuntimeError("a secret of anna's clips"), False),
    ],
)
def test_a_server_hears_of_requests_and_settings_and_not_of_clips(
    federation, people, sealed, monkeypatch: pytest.MonkeyPatch, error: Exception, told: bool
) -> None:
    """Whether a whole request fails or the step of a client in it."""
    site = federation.transport(federation.split(people), sealed).sites["north"]

    def fail(message: SiteMessage) -> SiteMessage:
        raise error

    monkeypatch.setitem(site._handlers, "hello", fail)
    whole = SiteMessage.decode(site.answer(SiteMessage("hello", {}).encode()))
    for why in (whole.fields["why"], site._left_out(0, "anna", error)):
        assert (str(error) in why) == told and "secret" not in why


def _state(width: int) -> bytes:
    from safetensors.torch import save

    return save({"first": torch.zeros(width, 3), "second": torch.zeros(3)})


def test_a_restarted_site_doesnt_join_a_round_twice(federation, people, sealed) -> None:
    transport = federation.transport(federation.split(people), sealed)
    federation.over_sites(transport, sealed)
    last = [request for name, request, _ in transport.passed if name == "north" and request.kind == "train"][-1]
    fresh = federation.transport({"north": federation.split(people)["north"]}, sealed).sites["north"]
    answer = SiteMessage.decode(fresh.answer(last.encode()))
    assert answer.kind == "refused" and "expected a round after 1, got 1" in answer.fields["why"]
    newer = replace(last, fields={**last.fields, "session": "00" * 16})
    assert "session" in SiteMessage.decode(fresh.answer(newer.encode())).fields["why"]  # its invitations name another


# What doesn't begin


@pytest.mark.parametrize(
    ("changes", "topic"),
    [
        ({"seed": 1}, "seed_everything: server '0', site '1'"),
        ({"rounds": 5}, "trainer.rounds: server '2', site '5'"),
        ({"local": LocalTraining(steps=4)}, "trainer.local: "),
        ({"cohort": PoissonCohort(0.9)}, "trainer.cohort: "),
        ({"aggregation": FedAvg()}, "site 'fedtalk.callbacks.aggregation.FedAvg {"),
        ({"aggregation": ISFA(gamma=1.0, alpha=0.5)}, '"alpha": "0.5"'),
    ],
)
def test_a_site_that_is_configured_otherwise_is_named_with_the_difference(
    federation, people, sealed, changes: dict, topic: str
) -> None:
    transport = federation.transport(federation.split(people), sealed)
    transport.sites["south"] = federation.site("south2", federation.split(people)["south"], sealed, **changes)
    with pytest.raises(ConfigurationError, match="site south: ") as raised:
        federation.over_sites(transport, sealed)
    assert topic in str(raised.value)


def test_other_privacy_or_other_frozen_parameters_are_differences(federation, people, sealed) -> None:
    site = federation.site("weaker", people, replace(sealed, clip_norm=4.0))
    hello = SiteMessage("hello", {"agreement": federation.site("a", people, sealed)._agreement})
    assert "trainer.privacy: " in SiteMessage.decode(site.answer(hello.encode())).fields["why"]
    drawn = federation.site("b", people, sealed)
    with torch.no_grad():
        drawn.module.frozen.add_(1e-6)
    drawn = type(drawn)(drawn.federation, drawn._engine, drawn._account, lambda: None)
    assert "frozen parameters: " in SiteMessage.decode(drawn.answer(hello.encode())).fields["why"]


def test_placement_is_each_sites_own(federation, people, sealed) -> None:
    transport = federation.transport(federation.split(people), sealed)
    own = LocalTraining(steps=3, batch_size=2, learning_rate=0.05, deadline_seconds=1000.0)
    transport.sites["south"] = federation.site(
        "south2", federation.split(people)["south"], sealed, precision="bf16-mixed", local=own
    )
    trainer, _ = federation.over_sites(transport, sealed)
    assert trainer.fit_rounds.faults.updated_rounds == 2


def test_the_same_name_at_two_sites_is_refused(federation, people, sealed) -> None:
    name = sorted(people)[0]
    transport = federation.transport({"north": people, "south": {name: people[name]}}, sealed)
    with pytest.raises(ConfigurationError, match=rf"client '{name}': expected at one site, got at north and at south"):
        federation.over_sites(transport, sealed)


@pytest.mark.parametrize(
    "privacy", [None, Privacy(secure_aggregation=False, where="central", noise_multiplier=1.0, delta=1e-2)]
)
def test_without_secure_aggregation_nothing_begins(federation, people, privacy: Privacy | None) -> None:
    with pytest.raises(ConfigurationError, match=r"trainer\.privacy: .*secure_aggregation: true"):
        federation.site("north", people, privacy)
    trainer = federation.trainer("server", privacy)
    trainer.engine, data = FlowerEngine(federation.transport({}, Privacy()), 1.0, 1.0), SiteClients()
    data.enter({"north": sorted(people)})
    with pytest.raises(ConfigurationError, match=r"trainer\.privacy"):
        trainer.fit(federation._colours(), data)


def test_a_silent_site_is_named(federation, people, sealed) -> None:
    transport = federation.transport(federation.split(people), sealed)
    transport.lost = lambda site, request: "answer" if site == "south" else None
    with pytest.raises(FedTalkError, match="site south: expected an answer"):
        gather(transport, federation.site("again", people, sealed)._agreement, transport.connected(), 1.0, lambda: None)
