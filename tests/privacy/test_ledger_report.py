"""`fedtalk ledger`: what it says is what the accountants say of the rounds that were charged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedtalk.cli import main
from fedtalk.federation.cohort import PoissonCohort, RotatingCohort
from fedtalk.privacy.accounting import gaussian_epsilon, prv_epsilon, rdp_epsilon
from fedtalk.privacy.ledger import Ledger
from fedtalk.privacy.ledger_report import shown_epsilons

CLIENTS = [f"client-{number}" for number in range(20)]


def _charged(folder: Path, **changes: object) -> Ledger:
    values: dict = {"sampler": PoissonCohort(0.3), "clients": CLIENTS, "noise_multiplier": 1.5, "delta": 1e-3}
    ledger = Ledger(**{**values, "rounds": 4, **changes})
    ledger.charge(CLIENTS[:3])
    ledger.charge(CLIENTS[2:5])
    ledger.write(folder / "checkpoints")
    return ledger


def test_it_names_every_adversary(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _charged(tmp_path, budget=5.0)
    assert main(["ledger", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    adapters, most, always = report["epsilon"]
    history = [(1.5, 0.3, 2)]
    assert adapters["against"] == "against whoever sees the adapters"
    assert (adapters["prv"], adapters["rdp"]) == (prv_epsilon(history, 1e-3), rdp_epsilon(history, 1e-3))
    assert most["against"].startswith(
        "against server and sites (no sampling), the client drawn most often, in 2 rounds"
    )
    assert most["exact"] == always["exact"] == gaussian_epsilon([(1.5, 1.0, 2)], 1e-3)
    assert report["clients_drawn"] == 5 and report["most_often_drawn"] == 2 and report["budget"] == 5.0
    assert report["spent_on"] == [{"opening": 1, "rounds": 2, "noise_multiplier": 1.5, "rate": 0.3}]
    assert main(["ledger", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in (
        "after 2 of 4 rounds",
        f"{most['exact']:.3f}",
        f"{adapters['rdp']:.3f}",
        "Poisson, rate 0.3",
        "keep this",
    ):
        assert part in shown


def test_a_server_that_adds_the_noise_and_turns_without_sampling(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _charged(tmp_path, central=True, sampler=RotatingCohort(2))
    assert main(["ledger", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["epsilon"]
    assert rows[-1] == {
        "against": "against the server, which adds the noise itself", "exact": None,
        "adjacency": "what a client contributes, or nothing in its place",
    }  # fmt: skip
    assert rows[0]["prv"] == rows[1]["exact"] == gaussian_epsilon([(1.5, 1.0, 2)], 1e-3)
    assert rows[1]["against"].startswith("against sites (no sampling)")
    assert main(["ledger", str(tmp_path)]) == 0
    assert "no bound" in capsys.readouterr().out


def test_what_may_be_shown_says_nothing_of_who_was_drawn(tmp_path: Path) -> None:
    assert shown_epsilons(tmp_path) == []
    _charged(tmp_path / "one")
    other = Ledger(PoissonCohort(0.3), CLIENTS, 1.5, 1e-3, rounds=4)
    other.charge([])
    other.charge(CLIENTS)
    other.write(tmp_path / "other" / "checkpoints")
    shown = shown_epsilons(tmp_path / "one")
    assert shown == shown_epsilons(tmp_path / "other") and len(shown) == 2
    assert shown[0]["prv"] == prv_epsilon([(1.5, 0.3, 2)], 1e-3)


def test_where_there_is_no_ledger_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["ledger", str(tmp_path)]) == 1
    assert f"{tmp_path} holds no ledger: expected the folder of a differentially private run" in capsys.readouterr().err
