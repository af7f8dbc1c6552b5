"""The ledger that a site keeps of its people: nothing forgotten, nothing past the budget, on the disk before it leaves."""

from __future__ import annotations

import json
import math
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedtalk.errors import ArtifactError
from fedtalk.privacy.accounting import ACCOUNTANTS
from fedtalk.privacy.participation import ParticipationRefused
from fedtalk.privacy.site_ledger import SiteBudget, SiteLedger, SiteRun

NOISED = SiteRun("server", "agreement", 0.8, 0.25, 1e-3, rounds=10)
ROTATING = SiteRun("server", "rotating", 0.8, None, 1e-3, rounds=10)
CLEAR = SiteRun("server", "other", None, None, None, rounds=10)


def test_it_is_the_owners_alone_and_whole(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    SiteLedger(folder).take(NOISED, "ab", 0, ["anna"])
    assert stat.S_IMODE((folder / "site_ledger.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    content = json.loads((folder / "site_ledger.json").read_text())
    assert content["kind"] == "site" and content["runs"][0]["people"] == {"anna": 1}
    assert SiteLedger.lies_in(folder) and not SiteLedger.lies_in(tmp_path)


def test_what_was_spent_adds_up_over_runs_and_servers(tmp_path: Path) -> None:
    ledger = SiteLedger(tmp_path)
    for number in (0, 3):
        ledger.take(NOISED, "ab", number, ["anna", "bert"] if number else ["anna"])
    ledger.take(replace(NOISED, server="another", noise_multiplier=1.2), "cd", 1, ["anna"])
    anna, bert = SiteLedger(tmp_path).spent("anna", "rdp"), SiteLedger(tmp_path).spent("bert", "rdp")
    assert anna.rounds == 3 and bert.rounds == 1 and ledger.people == ["anna", "bert"]
    expected = ACCOUNTANTS["rdp"]
    assert anna.adapters == expected(
        [(0.8, 0.25, 4), (1.2, 0.25, 2)], 1e-3
    )  # the rounds in which nobody was drawn count
    assert anna.insiders == expected([(0.8, 1.0, 2), (1.2, 1.0, 1)], 1e-3) > anna.adapters
    assert bert.adapters == expected([(0.8, 0.25, 4)], 1e-3)
    assert ledger.spent("nobody").rounds == 0 and ledger.spent("nobody").adapters == 0
    ledger.take(ROTATING, "ef", 6, ["cora"])
    assert ledger.spent("cora", "rdp").adapters == expected([(0.8, 1.0, 1)], 1e-3)
    ledger.take(CLEAR, "ef", 0, ["bert"])
    assert math.isinf(ledger.spent("bert").adapters) and math.isinf(ledger.spent("bert").insiders)


def test_rounds_that_are_taken_again_count_again(tmp_path: Path) -> None:
    ledger = SiteLedger(tmp_path)
    for session, number in (("ab", 0), ("ab", 4), ("cd", 4), ("ef", 0), ("ef", 1)):
        ledger.take(NOISED, session, number, ["anna"])
    (run,) = ledger.runs
    assert (run.reached, run.retaken, run.people) == (5, 1 + 5, {"anna": 5})


def test_two_sessions_that_take_turns_count_twice(tmp_path: Path) -> None:
    """A server that plays every round under one session and then under another releases all of them twice."""
    ledger, budget = SiteLedger(tmp_path), SiteBudget(None, 20)
    for number in range(10):
        for session in ("ab", "cd"):
            assert ledger.refusal(NOISED, session, number, "anna", budget) is None
            ledger.take(NOISED, session, number, ["anna"])
    assert ledger.spent("anna", "rdp").adapters == ACCOUNTANTS["rdp"]([(0.8, 0.25, 20)], 1e-3)


def test_whoever_could_have_been_drawn_has_spent_too(tmp_path: Path) -> None:
    """What sampling hides it hides of those who were not drawn as well: many runs may not each look free to them."""
    ledger = SiteLedger(tmp_path)
    for name in ("a", "b", "c"):
        run = replace(NOISED, agreement=name)
        for number in range(2):
            ledger.take(run, "ab", number, ["bert"], registered=["anna", "bert"])
    ledger.take(ROTATING, "ab", 0, ["bert"], registered=["anna", "bert"])
    ledger.take(CLEAR, "ab", 0, ["bert"], registered=["anna", "bert"])
    anna, expected = ledger.spent("anna", "rdp"), ACCOUNTANTS["rdp"]([(0.8, 0.25, 2)] * 3, 1e-3)
    assert (anna.rounds, anna.adapters, anna.insiders, anna.delta) == (0, expected, 0.0, 1e-3)
    refusal = ledger.refusal(replace(NOISED, agreement="d"), "ab", 0, "anna", SiteBudget(expected, 100, "rdp"))
    assert refusal is not None and "above the" in refusal


def test_one_agreement_under_two_noises_counts_by_the_weaker(tmp_path: Path) -> None:
    """How much noise a budget asks for depends a little on how many clients the server says there are."""
    ledger = SiteLedger(tmp_path)
    for number, multiplier in enumerate([0.8, 0.79, 0.81]):
        ledger.take(replace(NOISED, noise_multiplier=multiplier), "ab", number, ["anna"])
    assert ledger.spent("anna", "rdp").adapters == ACCOUNTANTS["rdp"]([(0.79, 0.25, 3)], 1e-3)


def test_past_the_agreed_rounds_or_a_persons_budget_it_refuses(tmp_path: Path) -> None:
    ledger, wide = SiteLedger(tmp_path), SiteBudget(None, 100)
    assert "round 10 of 10 that were agreed on" in ledger.refusal(NOISED, "ab", 10, "anna", wide)
    assert "round -1 of 10" in ledger.refusal(NOISED, "ab", -1, "anna", wide)
    for number in range(3):
        assert ledger.refusal(NOISED, "ab", number, "anna", SiteBudget(None, 3)) is None
        ledger.take(NOISED, "ab", number, ["anna"])
    assert "anna has given in 3 rounds" in ledger.refusal(NOISED, "ab", 3, "anna", SiteBudget(None, 3))
    assert "anna has given in 3 rounds" in ledger.refusal(CLEAR, "zz", 0, "anna", SiteBudget(None, 3))
    assert ledger.refusal(NOISED, "ab", 3, "bert", SiteBudget(None, 3)) is None
    now = ACCOUNTANTS["rdp"]([(0.8, 0.25, 3)], 1e-3)
    epsilon = SiteBudget(now * 1.001, 100, "rdp")
    assert "above the" in ledger.refusal(NOISED, "ab", 3, "anna", epsilon)
    assert "expected a round after 2, got 2" in ledger.refusal(NOISED, "ab", 2, "anna", wide)
    assert ledger.refusal(NOISED, "cd", 2, "anna", SiteBudget(None, 4)) is None


def test_two_runs_of_a_site_write_into_one_ledger(tmp_path: Path) -> None:
    first, second = SiteLedger(tmp_path), SiteLedger(tmp_path)
    first.take(NOISED, "ab", 0, ["anna"])
    second.take(CLEAR, "cd", 0, ["anna"])
    first.take(NOISED, "ab", 1, ["anna"])
    assert SiteLedger(tmp_path).spent("anna").rounds == 3


def test_two_runs_at_once_share_a_persons_budget(tmp_path: Path) -> None:
    """Both ask while there is enough for one of them: the one that writes second writes nothing."""
    first, second, budget = SiteLedger(tmp_path), SiteLedger(tmp_path), SiteBudget(None, 1)
    assert first.refusal(NOISED, "ab", 0, "anna", budget) is second.refusal(NOISED, "cd", 0, "anna", budget) is None
    first.take(NOISED, "ab", 0, ["anna"], budget=budget)
    with pytest.raises(ParticipationRefused, match="anna has given in 1 rounds"):
        second.take(NOISED, "cd", 0, ["bert", "anna"], budget=budget)
    assert "anna has given in 1 rounds" in second.refusal(NOISED, "cd", 0, "anna", budget)
    assert SiteLedger(tmp_path).people == ["anna"] and SiteLedger(tmp_path).spent("anna").rounds == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"kind": "run", "version": 1, "runs": []}',
                                     '{"kind": "site", "version": 2, "runs": []}',
                                     '{"kind": "site", "version": 1, "runs": [{"server": "x"}]}'])  # fmt: skip
def test_a_ledger_that_cant_be_read_is_never_taken_for_an_empty_one(tmp_path: Path, content: str) -> None:
    ledger = SiteLedger(tmp_path)
    (tmp_path / "site_ledger.json").write_text(content)
    with pytest.raises(ArtifactError, match="not known"):
        SiteLedger(tmp_path)
    with pytest.raises(ArtifactError):
        ledger.take(NOISED, "ab", 0, ["anna"])


TAKES = st.lists(
    st.tuples(st.sampled_from(["ab", "cd", "ef"]), st.integers(0, 9), st.sampled_from(["server", "another"])),
    max_size=12,
)


@given(TAKES)
@example([("ab", 0, "server"), ("cd", 0, "server"), ("ab", 1, "server"), ("cd", 1, "server")])
@example([("ab", 4, "server"), ("cd", 1, "server"), ("ef", 3, "server"), ("ab", 7, "server"), ("cd", 7, "server")])
@settings(max_examples=300, deadline=None)
def test_never_below_an_independent_log_of_all_that_left(takes: list[tuple[str, int, str]]) -> None:
    """However sessions come and go and are played again: a round of a session that gave twice was released twice."""
    run, runs = NOISED, dict[str, SiteRun]()
    released: dict[str, set[tuple[str, int]]] = {}
    for session, number, server in takes:
        run = runs.get(server, replace(NOISED, server=server))
        if number <= run.sessions.get(session, -1):  # a client joins no round twice, nor an older one
            continue
        runs[server] = run.after(session, number, ["anna"])
        released.setdefault(server, set()).add((session, number))
    for server, log in released.items():
        assert runs[server].people["anna"] == len(log)
        assert runs[server].reached + runs[server].retaken >= len(log)
