"""Placements: what they say, and one result wherever a client trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from exact_talker import ExactTalker
from lightning.fabric import Fabric
from torch import nn

from fedtalk.callbacks.aggregation import ISFA
from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.errors import ConfigurationError
from fedtalk.planning.preconditions import check_rules
from fedtalk.talker.adapters import Adapter
from fedtalk.training.local import LocalTraining, train_locally
from fedtalk.training.module import copy_state
from fedtalk.training.optimizer import LocalOptimizer
from fedtalk.training.placement import Placement, Placements

CPU = torch.device("cpu")


@pytest.fixture
def people(parts) -> dict:
    return {
        name: parts.Person((0.2 * number, 0.5, -0.3 * number), clips=1 + number % 2)
        for number, name in enumerate(("site-a-1", "site-a-2", "bert"))
    }


def _train(module, placement: Placement, clips: list, local: LocalTraining | None = None) -> dict[str, torch.Tensor]:
    local = local or LocalTraining(steps=3, batch_size=4, learning_rate=0.05, proximal=0.3, gradient_clip=0.2)
    train_locally(Fabric(accelerator="cpu", devices=1), module, clips, local, 0, "anna", 0, 1, placement=placement)
    return {name: value.detach().clone() for name, value in module.exchanged_parameters().items()}


def _distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def _clips() -> list[dict[str, torch.Tensor]]:
    return [{"colour": torch.tensor([0.9, 0.1, -0.4]), "does": torch.tensor(0)}]


# What a placement says


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "dpp"}, "placement.kind: expected one of single, ddp, fsdp, got 'dpp'"),
        ({"optimizer": "lion"}, "placement.optimizer: expected one of adamw, adamw8bit, sgd, got 'lion'"),
        ({"precision": "16-true"}, "placement.precision: expected one of 32-true, bf16-mixed"),
        ({"accumulate": 0}, "placement.accumulate: expected at least 1, got 0"),
        ({"kind": "ddp"}, "placement.processes: expected 2 or more for ddp, got 1"),
        ({"processes": 2}, "placement.processes: expected 1 for single"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message.replace("(", r"\(")):
        Placement(**settings)


@pytest.mark.parametrize(
    ("rules", "batch_size", "keep", "message"),
    [
        ({"site-b-*": Placement()}, 4, False, r"pattern 'site-b-\*' fits none of the 2 clients"),
        ({"*": Placement("ddp", 2, accumulate=2)}, 6, False, r"trainer.placements\['\*'\].*multiple of 4, got 6"),
        ({"*": Placement("fsdp", 2)}, 4, True, r"trainer.placements\['\*'\].*keep_optimizer"),
        ({"*": Placement(cpu_offload=True)}, 4, False, r"trainer.placements\['\*'\]: cpu_offload .* expected false"),
    ],
)
def test_what_cant_be_run_is_refused_before_any_work(rules: dict, batch_size: int, keep: bool, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_rules(Placements(rules=rules), ["site-a-1", "bert"], batch_size, keep, CPU)


def test_the_first_rule_that_fits_a_client_counts() -> None:
    first, second, default = Placement(accumulate=2), Placement(accumulate=4), Placement(precision="bf16-mixed")
    found = Placements(default, {"site-a-*": first, "site-*": second})
    assert [found.of(name) for name in ("site-a-1", "site-b-1", "anna")] == [first, second, default]
    check_rules(found, ["site-a-1", "site-b-1", "anna"], 4, False, CPU)


def test_a_module_that_cant_is_asked_before_any_work(parts, colours, tmp_path: Path) -> None:
    class Nobody(parts.People):
        def training_clips(self, client: str) -> list:
            raise AssertionError("no clip is opened")

    for placed, message in (
        (Placement(gradient_checkpointing=True), "default_placement: Colours has no gradient checkpointing"),
        (Placement("fsdp", 2), "default_placement: Colours does not say how to shard it"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            parts.trainer(tmp_path, default_placement=placed).fit(colours(), Nobody({"anna": parts.Person()}))


# One process


def test_parts_of_a_batch_give_its_gradient_and_its_losses(parts) -> None:
    seen = []
    local = LocalTraining(steps=2, batch_size=4, learning_rate=0.05, proximal=0.3)
    for accumulate in (1, 2, 4):
        module, losses = parts.Pull(), []
        train_locally(
            Fabric(accelerator="cpu", devices=1), module, _clips(), local, 0, "anna", 0, 1, None,
            lambda step, terms, losses=losses: losses.append(terms), Placement(accumulate=accumulate),
        )  # fmt: skip
        seen.append(([value.detach().clone() for value in module.exchanged_parameters().values()], losses))
    for values, losses in seen[1:]:
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(values, seen[0][0], strict=True))
        assert [pytest.approx(terms, rel=1e-5) for terms in seen[0][1]] == losses
    assert seen[0][1][1].keys() == {"loss", "pull", "proximal"} and seen[0][1][1]["proximal"] > 0


def test_a_batch_that_cant_be_cut_is_refused(colours) -> None:
    batch = {"colour": torch.zeros(4, 3), "signs": torch.zeros(3)}
    with pytest.raises(ConfigurationError, match=r"multiple of 2 there, got \[3, 4\]"):
        colours().split_batch(batch, 2)


@pytest.mark.parametrize("offload", [False, True])
def test_8_bit_states_have_8_bits(offload: bool) -> None:
    pytest.importorskip("bitsandbytes")
    parameters = {"lora_A": nn.Parameter(torch.randn(2, 40)), "lora_B": nn.Parameter(torch.randn(40, 2))}
    optimizer = LocalOptimizer(parameters, 0.01, 0.0, Placement(optimizer="adamw8bit", cpu_offload=offload))
    before = {name: value.detach().clone() for name, value in parameters.items()}
    for value in parameters.values():
        value.grad = torch.ones_like(value)
    optimizer.collect()
    optimizer.step(0.01)
    for name, value in optimizer.values.items():
        moments = [state for key, state in optimizer.inner.state[value].items() if key in ("state1", "state2")]
        assert [(state.dtype, state.numel()) for state in moments] == [(torch.uint8, 80)] * 2
        # AdamW's first step is the learning rate, against the gradient's sign.
        torch.testing.assert_close(parameters[name].detach(), before[name] - 0.01, atol=1e-4, rtol=0)


def test_8_bit_training_ends_near_32_bit_training(parts) -> None:
    pytest.importorskip("bitsandbytes")
    full, small = (_train(parts.Pull(), Placement(optimizer=name), _clips()) for name in ("adamw", "adamw8bit"))
    assert 0 < _distance(full, small) < 0.02


def test_precision_is_that_of_the_computation_and_not_of_the_adapter(parts, federation) -> None:
    """autocast: a placement's own, in the same process as others'."""
    from fedtalk.federation.client import ClientHalf
    from fedtalk.federation.local_work import LocalWork

    kinds = []

    class Watching(parts.Pull):
        def loss_terms(self, batch):
            kinds.append(self.net[2](torch.ones(1, 8)).dtype)
            return super().loss_terms(batch)

    placements = Placements(rules={"b": Placement(precision="bf16-mixed")})
    module = Watching()
    start = {name: value.detach().clone() for name, value in module.exchanged_parameters().items()}
    half = ClientHalf(federation(module, placements=placements))
    half.prepared = lambda client, held_out=False: _clips()  # type: ignore[method-assign]
    work = LocalWork(0, 1, LocalTraining(steps=1, batch_size=2))
    ends = [half.work(name, work, start, lambda *_: None).state for name in ("a", "b")]
    assert kinds == [torch.float32, torch.bfloat16]
    assert {value.dtype for end in ends for value in end.values()} == {torch.float32}
    assert 0 < _distance(*ends) < 5e-3


def test_gradient_checkpointing_recomputes_and_changes_nothing(make_talker: Callable, prepared: list) -> None:
    local = LocalTraining(steps=2, batch_size=2)
    calls: dict[bool, int] = {}
    ends = {}
    for enabled in (False, True):
        talker = make_talker()
        block = talker.backbone.denoiser.unet.down_blocks[0].resnets[0]
        calls[enabled] = 0

        def count(*_: object, enabled: bool = enabled) -> None:
            calls[enabled] += 1

        block.register_forward_pre_hook(count)  # recomputing stops before the end, once it has what it needs
        ends[enabled] = _train(talker, Placement(gradient_checkpointing=enabled), prepared[:2], local)
        assert not talker.backbone.denoiser.unet.is_gradient_checkpointing
    assert calls[True] > calls[False]
    assert _distance(ends[False], ends[True]) < 1e-6


# Several processes


def _fit(parts, people: dict, folder: Path, **settings: object) -> dict[str, torch.Tensor]:
    module = parts.Pull()
    local = LocalTraining(steps=3, batch_size=4, learning_rate=0.05, proximal=0.2, gradient_clip=0.3)
    parts.trainer(folder, [ISFA(gamma=1.0)], local=local, **settings).fit(module, parts.People(people))
    return {name: value.detach().clone() for name, value in module.exchanged_parameters().items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_four_processes(local_ray: None, parts, people: dict, tmp_path: Path, kind: str) -> None:
    """Factors of three rows on four processes: one of them has nothing of them."""
    one = {"bert": people["bert"]}
    alone = _fit(parts, one, tmp_path / "alone")
    together = _fit(parts, one, tmp_path / "together", default_placement=Placement(kind, 4))
    assert _distance(alone, together) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_talker_on_two_processes(local_ray: None, tiny_backbone: Path, tmp_path: Path, parts, kind: str) -> None:
    """The frozen backbone with its adapter; sharded block by block."""
    ends = []
    for placed in (Placement(), Placement(kind, 2)):
        talker = ExactTalker(str(tiny_backbone), adapter=Adapter(rank=2, alpha=4.0), window=4).eval()
        talker.backbone.denoiser.double()
        start = copy_state(talker.exchanged_parameters())
        fit = parts.trainer(
            tmp_path / placed.kind, [ISFA(gamma=0.0)], rounds=1, default_placement=placed,
            local=LocalTraining(steps=3, batch_size=2, learning_rate=3e-3),
        )  # fmt: skip
        fit.fit(talker, SynthTalkData(speakers=2, clips=1, held_out=1, frames=12, size=32))
        ends.append(copy_state(talker.exchanged_parameters()))
    assert _distance(*ends) < 1e-7
    assert _distance(ends[0], start) > 3e-3


@pytest.mark.skipif(torch.cuda.device_count() < 1, reason="needs a GPU")
@pytest.mark.parametrize("placed", [Placement(cpu_offload=True), Placement(precision="bf16-mixed")], ids=repr)
def test_a_gpu(local_ray: None, parts, people: dict, tmp_path: Path, placed: Placement) -> None:
    on_cpu = _fit(parts, people, tmp_path / "cpu")
    on_gpu = _fit(parts, people, tmp_path / "gpu", accelerator="cuda", default_placement=placed, workers=2)
    assert _distance(on_cpu, on_gpu) < (1e-3 if placed.precision is None else 0.05)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("offload", [False, True])
def test_two_gpus(local_ray: None, parts, people: dict, tmp_path: Path, kind: str, offload: bool) -> None:
    on_cpu = _fit(parts, people, tmp_path / "cpu")
    placed = Placement(kind, 2, cpu_offload=offload)
    on_gpu = _fit(parts, people, tmp_path / "gpu", accelerator="cuda", default_placement=placed)
    assert _distance(on_cpu, on_gpu) < 1e-3
