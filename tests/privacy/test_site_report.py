"""`fedtalk ledger` of a site: each person against each adversary, each run, and no bound where something was given clear."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedtalk.cli import main
from fedtalk.privacy.accounting import ACCOUNTANTS
from fedtalk.privacy.site_ledger import SiteLedger, SiteRun


def test_a_sites_ledger_says_what_its_people_gave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = SiteLedger(tmp_path)
    noised = SiteRun("server", "agreement", 0.8, 0.25, 1e-3, rounds=10)
    for number in (0, 1):
        ledger.take(noised, "ab", number, ["anna"])
    ledger.take(SiteRun("other", "clear", None, None, None, rounds=2), "cd", 0, ["bert"])
    assert main(["ledger", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    anna, bert = report["people"]
    assert (anna["person"], anna["rounds"], bert["person"], bert["rounds"]) == ("anna", 2, "bert", 1)
    adapters, insiders = (entry[next(iter(set(entry) - {"against"}))] for entry in anna["epsilon"])
    assert adapters == pytest.approx(ACCOUNTANTS["prv"]([(0.8, 0.25, 2)], 1e-3)) and adapters < insiders
    assert all(entry[next(iter(set(entry) - {"against"}))] is None for entry in bert["epsilon"])
    assert [run["rounds"] for run in report["spent_on"]] == [2, 1]
    assert main(["ledger", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "anna" in told and "no bound" in told
