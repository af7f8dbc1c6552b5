"""Clients in one batch give what they give apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor

from fedtalk.errors import ConfigurationError
from fedtalk.federation.engines.ray.desk import GivenUp
from fedtalk.federation.local_work import LocalWork
from fedtalk.talker.adapters import Adapter
from fedtalk.talker.module import Talker
from fedtalk.talker.objectives import DiffusionLoss, PerceptualLoss, TemporalDenoisingConsistency
from fedtalk.training.local import LocalTraining, train_locally
from fedtalk.training.module import Prepared, copy_state, load_state
from fedtalk.training.placement import Placement, Placements
from fedtalk.training.together import train_together

MakeTalker = Callable[..., Talker]
FABRIC = Fabric(accelerator="cpu", devices=1)
ROUNDING = 5e-3
"""AdamW divides a gradient by its own size, which makes rounding larger; clients mixed up differ by more than 0.1."""
LOCAL = LocalTraining(steps=3, batch_size=2, learning_rate=5e-3, gradient_clip=0.3, proximal=0.1, schedule="cosine")


def _prepared(talker: Talker, clips: list) -> dict[str, list[Prepared]]:
    return {
        "anna": [talker.prepare_clip(clip) for clip in clips[:2]],
        "bert": [talker.prepare_clip(clips[2])],
        "cora": [talker.prepare_clip(clips[3])],
    }


def _stirred(talker: Talker) -> dict[str, Tensor]:
    """An adapter that does something; at its start B is zero and A would get no gradient."""
    generator = torch.Generator().manual_seed(5)
    state = {
        name: value + 0.05 * torch.randn(value.shape, generator=generator)
        for name, value in copy_state(talker.exchanged_parameters()).items()
    }
    load_state(talker.exchanged_parameters(), state)
    return state


def _apart(
    talker: Talker, clips: dict[str, list[Prepared]], local: LocalTraining = LOCAL
) -> dict[str, dict[str, Tensor]]:
    start, ends = copy_state(talker.exchanged_parameters()), {}
    for client, own in clips.items():
        load_state(talker.exchanged_parameters(), start)
        train_locally(FABRIC, talker, own, local, 7, client, 1, 4)
        ends[client] = copy_state(talker.exchanged_parameters())
    load_state(talker.exchanged_parameters(), start)
    return ends


def _difference(one: dict[str, Tensor], other: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    """Of two updates, in units of the first one's norm."""
    between = torch.cat([(one[name] - other[name]).flatten() for name in start]).norm()
    return float(between / torch.cat([(one[name] - start[name]).flatten() for name in start]).norm())


@pytest.mark.parametrize("aggregation", ["factors", "freeze_a"])
def test_three_clients_in_one_batch_learn_what_they_learn_apart(
    make_talker: MakeTalker, clips: list, aggregation: str
) -> None:
    objectives = [DiffusionLoss(), TemporalDenoisingConsistency(), PerceptualLoss()]
    talker = make_talker(adapter=Adapter(rank=2, alpha=4.0, aggregation=aggregation), objectives=objectives)
    prepared, start = _prepared(talker, clips), _stirred(talker)
    heard: dict[str, list[dict[str, float]]] = {name: [] for name in prepared}
    expected = _apart(talker, prepared)
    got = train_together(FABRIC, talker, prepared, LOCAL, 7, 1, 4, lambda name, step, terms: heard[name].append(terms))
    assert list(got) == list(prepared)
    for client in prepared:
        assert _difference(expected[client], got[client], start) < ROUNDING
        assert [set(terms) for terms in heard[client]] == [{"loss", "diffusion", "tdc", "perceptual", "proximal"}] * 3
    assert _difference(expected["anna"], expected["bert"], start) > 0.1  # so that mixing them up would show
    torch.testing.assert_close(copy_state(talker.exchanged_parameters()), start)


def test_a_client_whose_losses_are_not_finite_harms_nobody(make_talker: MakeTalker, clips: list) -> None:
    talker = make_talker()
    prepared, start = _prepared(talker, clips), _stirred(talker)
    expected = _apart(talker, prepared)
    prepared["bert"][0]["latents"][:] = float("nan")
    got = train_together(FABRIC, talker, prepared, LOCAL, 7, 1, 4)
    assert not all(torch.isfinite(value).all() for value in got["bert"].values())
    for client in ("anna", "cora"):
        assert _difference(expected[client], got[client], start) < ROUNDING


def test_the_network_is_its_own_again_after_an_error(make_talker: MakeTalker, clips: list) -> None:
    talker = make_talker()
    prepared = _prepared(talker, clips)
    _stirred(talker)
    expected = _apart(talker, prepared)

    def fail(name: str, step: int, terms: dict[str, float]) -> None:
        raise RuntimeError("callback")

    with pytest.raises(RuntimeError, match="callback"):
        train_together(FABRIC, talker, prepared, LOCAL, 7, 1, 4, fail)
    again = _apart(talker, prepared)
    assert all(torch.equal(expected[c][name], again[c][name]) for c in expected for name in expected[c])


def test_groups_keep_the_order_and_the_placement() -> None:
    placements = Placements(Placement(together=3), {"b*": Placement(together=2), "slow": Placement(optimizer="adamw")})
    cohort = ["a1", "b1", "a2", "slow", "b2", "a3", "a4", "b3"]
    assert placements.groups(cohort) == [["a1", "a2", "a3"], ["a4"], ["b1", "b2"], ["b3"], ["slow"]]


@pytest.mark.parametrize("others", [{"accumulate": 2}, {"kind": "ddp", "processes": 2}, {"optimizer": "adamw8bit"}])
def test_what_cannot_go_together_is_refused(others: dict) -> None:
    with pytest.raises(ConfigurationError, match=r"placement\.together: .*got together: 2"):
        Placement(together=2, **others)


def test_a_fit_gives_the_same_adapter_and_a_broken_client_costs_itself(make_talker: MakeTalker, tmp_path: Path) -> None:
    from fedtalk.callbacks.aggregation import ISFA
    from fedtalk.data.synthtalk_data import SynthTalkData
    from fedtalk.federation.cohort import PoissonCohort
    from fedtalk.federation.trainer import FederatedTrainer

    class Broken(SynthTalkData):
        def training_clips(self, client: str) -> list:
            if client == self.clients[1]:
                raise OSError("disk gone")
            return super().training_clips(client)

    adapters, losses = [], []
    for together in (1, 3):
        data = Broken(speakers=4, clips=1, held_out=1, frames=12, size=32)
        talker = make_talker()
        trainer = FederatedTrainer(
            rounds=2, cohort=PoissonCohort(1.0), local=LocalTraining(steps=2, batch_size=2), validate_every=0,
            default_placement=Placement(together=together), aggregation=ISFA(gamma=1.0), accelerator="cpu",
            default_root_dir=str(tmp_path / str(together)), cache_dir=str(tmp_path / "cache"), threads=1,
        )  # fmt: skip
        trainer.fit(talker, data)
        adapters.append(copy_state(talker.exchanged_parameters()))
        losses.append(trainer.fit_rounds.faults.last_failures)
    start = copy_state(make_talker().exchanged_parameters())
    assert _difference(adapters[0], adapters[1], start) < ROUNDING
    assert losses[0] == losses[1] == {"private-0001": "OSError: disk gone"}


@pytest.fixture
def half(make_talker: MakeTalker, clips: list, federation: Callable, monkeypatch: pytest.MonkeyPatch):
    """The client half of anna, bert and cora, who train in one batch, and their prepared clips."""
    from fedtalk.federation.client import ClientHalf

    talker = make_talker()
    made = ClientHalf(federation(talker, seed=7, placements=Placements(Placement(together=3))))
    prepared = _prepared(talker, clips)
    monkeypatch.setattr(made, "prepared", lambda client, held_out=False: prepared[client])
    return made, prepared


@pytest.mark.parametrize("trouble", ["memory", "shape"])
def test_a_batch_that_fails_is_trained_apart(half, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    """To the bits of training apart, but for a client whose own clips are what fails."""
    clients, prepared = half
    start = _stirred(clients.module)
    expected = _apart(clients.module, prepared)
    if trouble == "shape":
        prepared["bert"][0]["latents"] = prepared["bert"][0]["latents"][..., :-1]
    else:

        def fail(batch: Prepared, number: int) -> list:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(clients.module, "training_steps", fail)
    results = dict(clients.work_together(list(prepared), LocalWork(1, 4, LOCAL), start, lambda *step: None))
    assert list(results) == list(prepared)
    for client, result in results.items():
        if trouble == "shape" and client == "bert":
            assert result.kind == "RuntimeError"
        else:
            assert all(torch.equal(result.state[name], expected[client][name]) for name in start)


def test_a_batch_that_is_stopped_is_not_trained_again(half) -> None:
    clients, prepared = half
    start, steps = _stirred(clients.module), []

    def give_up(*step: object) -> None:
        steps.append(step)
        raise GivenUp

    results = dict(clients.work_together(list(prepared), LocalWork(1, 4, LOCAL), start, give_up))
    assert {result.kind for result in results.values()} == {"GivenUp"} and len(steps) == 1
    hurried = LocalWork(1, 4, replace(LOCAL, deadline_seconds=1e-9))
    results = dict(clients.work_together(list(prepared), hurried, start, lambda *step: steps.append(step)))
    assert {result.kind for result in results.values()} == {"DeadlineError"} and len(steps) == 2


def test_a_batch_that_fails_has_no_more_time_for_it(half, monkeypatch: pytest.MonkeyPatch) -> None:
    clients, prepared = half

    def fail(batch: Prepared, number: int) -> list:
        time.sleep(1.0)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(clients.module, "training_steps", fail)
    hurried = LocalWork(1, 4, replace(LOCAL, deadline_seconds=1.0))
    results = dict(clients.work_together(list(prepared), hurried, _stirred(clients.module), lambda *step: None))
    assert {result.kind for result in results.values()} == {"DeadlineError"}
