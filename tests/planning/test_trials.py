"""Placements that are tried before a run: really run, told why where they can't be, and nothing of it is left."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedtalk.callbacks.aggregation import ISFA
from fedtalk.planning import trials
from fedtalk.training.module import copy_state
from fedtalk.training.placement import Placement


@pytest.fixture
def people(parts) -> dict:
    return {name: parts.Person((0.2, 0.5, -0.3)) for name in ("site-a-1", "site-a-2", "bert", "cora")}


@pytest.mark.slow
def test_the_configs_placements_come_first_and_each_is_run(
    local_ray: None,
    parts,
    people: dict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(trials, "_devices", lambda trainer: 2)
    module, data = parts.Pull(), parts.People(people)
    rules = {"site-a-*": Placement("ddp", 2), "cora": Placement("fsdp", 64)}
    trainer = parts.trainer(tmp_path, [ISFA(gamma=1.0)], placements=rules, local=parts.local(batch_size=64))
    start = copy_state(module.exchanged_parameters())
    found = trainer.estimate(module, data)
    named = {trial.placement: trial for trial in found.trials}
    assert [(trial.placement, trial.clients) for trial in found.trials[:3]] == [
        ("ddp, processes 2", 2), ("single", 1), ("fsdp, processes 64", 1),
    ]  # fmt: skip
    assert named["fsdp, processes 64"].step_s is None
    assert named["fsdp, processes 64"].reason == "it needs 64 devices or cores, this machine has 2"
    for name in ("ddp, processes 2", "single", "fsdp, processes 2", "single, precision bf16-mixed"):
        trial = named[name]
        assert trial.reason == "" and 0 < trial.step_s < trial.first_s + 1
        assert (trial.memory_bytes > 10**7) == (
            name != "single, precision bf16-mixed"
        )  # in this process, as others were
    assert named["fsdp, processes 2"].clients == 0 and "single, together 4" not in named  # which this module can't
    pair, one = named["ddp, processes 2"].step_s, named["single"].step_s
    assert found.costs.step_s == pytest.approx((2 * pair + one) / 3)
    trainer.fit(module, data, dry_run=True)
    text = capsys.readouterr().out
    assert "not tried: it needs 64 devices" in text
    assert any(line.split()[:4] == ["ddp,", "processes", "2", "2"] for line in text.splitlines())
    assert all(torch.equal(value, start[name]) for name, value in module.exchanged_parameters().items())
    assert not (tmp_path / "run").exists()


def test_for_another_machine_one_process_of_this_one_is_measured(
    parts, people: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "_devices", lambda federation: 1)
    placed = Placement("ddp", 64)
    trainer = parts.trainer(tmp_path, [ISFA()], default_placement=placed, local=parts.local(batch_size=64))
    found = trainer.estimate(parts.Pull(), parts.People(people))
    (single,) = [trial for trial in found.trials if trial.placement == "single"]
    assert found.trials[0].step_s is None and found.costs.step_s == single.step_s
