"""Personal training goes where a round's local work goes, to the same adapters, and is no round."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor

from fedtalk.callbacks.aggregation import ISFA
from fedtalk.callbacks.base import RoundCallback
from fedtalk.callbacks.personal import PersonalTraining
from fedtalk.errors import OutputError
from fedtalk.federation.client import ClientHalf
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.interruption import Interrupted
from fedtalk.randomness import torch_generator
from fedtalk.talker.adapters import LOOKS, Adapter
from fedtalk.talker.module import Talker
from fedtalk.training.local import LocalTraining, train_locally
from fedtalk.training.module import load_state
from fedtalk.training.placement import Placement

STEPS = 2


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch):
    """The module that worker processes import too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import personal_parts

    return personal_parts


Fit = Callable[..., FederatedTrainer]


@pytest.fixture
def fit(tmp_path: Path, make_talker: Callable[..., Talker], request: pytest.FixtureRequest) -> Fit:
    """Personal adapters of a run in FOLDER, without any round unless told otherwise; the run's callbacks come last."""

    def run(
        folder: str,
        data: object,
        *callbacks: RoundCallback,
        ckpt_path: str | None = None,
        talker: Talker | None = None,
        **settings: object,
    ):
        if settings.get("workers", 1) > 1 or settings.get("default_placement", Placement()).needs_ray:
            request.getfixturevalue("local_ray")
        trainer = FederatedTrainer(
            cohort=PoissonCohort(1.0), accelerator="cpu", threads=1, default_root_dir=str(tmp_path / folder),
            cache_dir=str(tmp_path / "cache"),
            aggregation=ISFA(gamma=1.0), callbacks=list(callbacks),
            **{
                "rounds": 0, "validate_every": 0, "local": LocalTraining(steps=1, batch_size=2),
                "personal": PersonalTraining(steps=STEPS, learning_rate=5e-3), **settings,
            },
        )  # type: ignore[arg-type]  # fmt: skip
        trainer.fit(talker or make_talker(), data, ckpt_path, overwrite=True)
        return trainer

    return run


def _adapters(folder: Path) -> dict[str, dict[str, Tensor]]:
    return {path.parent.name: load_file(path) for path in folder.rglob("adapter_model.safetensors")}


def _same(one: dict[str, dict[str, Tensor]], other: dict[str, dict[str, Tensor]]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[client][name], other[client][name]) for client in one for name in one[client]
    )


def _prepared(half: ClientHalf, talker: Talker, client: str) -> list[dict[str, Tensor]]:
    """A client's clips with its looks, which personal training starts from."""
    talker.looks = talker.looks_of(half.prepared(client))
    assert talker.looks is not None
    return half.prepared(client)


def _difference(one: dict[str, dict[str, Tensor]], other: dict[str, dict[str, Tensor]]) -> float:
    """The largest of all clients' differences, in units of what their first adapter learned."""
    start, differences = one["released"], []
    for client in one.keys() - {"released"}:
        between, learned = (
            torch.cat([(one[client][name] - against[name]).flatten() for name in start]).norm()
            for against in (other[client], start)
        )
        differences.append(float(between / learned))
    return max(differences)


class Steps(RoundCallback):
    """Keeps the local steps that rounds tell of."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str, int]] = []

    def on_local_step(self, trainer, client, step, steps, losses) -> None:
        self.seen.append((trainer.round_number, client, step))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_any_number_of_workers_gives_the_bits_of_a_bare_loop(
    parts, fit: Fit, make_talker: Callable[..., Talker], tmp_path: Path, workers: int
) -> None:
    """After a round of a run that keeps optimizers: personal training starts without, and no step of it is the round's."""
    local = LocalTraining(steps=1, batch_size=2, keep_optimizer=True)
    data, steps = parts.Troubled(3), Steps()
    trainer = fit("one", data, steps, rounds=1, local=local, workers=workers)
    one = _adapters(tmp_path / "one")
    assert sorted(steps.seen) == [(0, client, 0) for client in data.clients]
    client, talker = data.clients[1], make_talker()
    talker.load_adapter(tmp_path / "one" / "adapters" / "released")
    alone = LocalTraining(steps=STEPS, batch_size=2, learning_rate=5e-3, schedule="cosine")
    clips = _prepared(ClientHalf(trainer.federate(talker, data)), talker, client)
    train_locally(Fabric(accelerator="cpu", devices=1), talker, clips, alone, trainer.seed, f"personal/{client}", 0, 1)
    talker.save_adapter(tmp_path / "bare" / client)
    assert _same({client: one[client]}, _adapters(tmp_path / "bare"))
    adapters = tmp_path / "one" / "adapters"
    assert (adapters / "personal" / client / LOOKS).read_bytes() == (tmp_path / "bare" / client / LOOKS).read_bytes()
    assert not (adapters / "released" / LOOKS).exists()


def test_a_client_that_keeps_factors_goes_on_from_its_own(
    parts, fit: Fit, make_talker: Callable[..., Talker], tmp_path: Path
) -> None:
    """FedPer: kept factors are nobody's in the released adapter, and a client's personal one has those of its last round."""

    def split() -> Talker:
        return make_talker(adapter=Adapter(rank=2, shared=["attn2"]))

    data = parts.Troubled(2)
    client = data.clients[1]
    trainer = fit("kept", data, rounds=1, talker=split())
    made, talker = _adapters(tmp_path / "kept"), split()
    learned = {name for name, value in made["released"].items() if "lora_B" in name and value.any()}
    assert learned and all("attn2" in name for name in learned)
    assert any(made[client][name].any() for name in made[client] if "lora_B" in name and "attn2" not in name)
    talker.load_adapter(tmp_path / "kept" / "adapters" / "released")
    federation = trainer.federate(talker, data)
    load_state(talker.kept_parameters(), federation.client_states.load(client, 1)["kept"])
    alone = LocalTraining(steps=STEPS, batch_size=2, learning_rate=5e-3, schedule="cosine")
    clips = _prepared(ClientHalf(federation), talker, client)
    train_locally(Fabric(accelerator="cpu", devices=1), talker, clips, alone, trainer.seed, f"personal/{client}", 0, 1)
    talker.save_adapter(tmp_path / "bare" / client)
    assert _same({client: made[client]}, _adapters(tmp_path / "bare"))


def test_ditto_is_what_a_plain_loop_with_its_term_makes(
    parts, fit: Fit, make_talker: Callable[..., Talker], tmp_path: Path
) -> None:
    """min_v F_k(v) + lambda/2 ||v - w||^2 from v = w (Li et al. 2021, eq. 1)."""
    data, strength = parts.Troubled(2), 50.0
    ditto = PersonalTraining(steps=STEPS, learning_rate=5e-3, proximal=strength)
    trainer, client = fit("ditto", data, personal=ditto), data.clients[1]
    talker = make_talker()
    clips = _prepared(ClientHalf(trainer.federate(talker, data)), talker, client)
    parameters = list(talker.exchanged_parameters().values())
    start = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=5e-3, betas=(0.9, 0.99), weight_decay=0.0)
    draws = torch_generator(trainer.seed, "batches", 0, f"personal/{client}")
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 5e-3 * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        away = sum((v - w).square().sum() for v, w in zip(parameters, start, strict=True))
        loss = sum(talker.loss_terms(talker.draw_batch(clips, 2, draws)).values()) + strength / 2 * away
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    talker.save_adapter(tmp_path / "plain" / client)
    made, plain = _adapters(tmp_path / "ditto")[client], _adapters(tmp_path / "plain")[client]
    for name in plain:
        torch.testing.assert_close(made[name], plain[name], rtol=1e-3, atol=1e-5)
    fit("without", data)
    assert (
        max(float((made[name] - other).abs().max()) for name, other in _adapters(tmp_path / "without")[client].items())
        > 1e-4
    )


@pytest.mark.parametrize(
    "placed",
    [Placement(together=2), pytest.param(Placement("fsdp", 2), marks=pytest.mark.slow)],
    ids=["together", "fsdp"],
)
def test_other_placements_give_the_adapters_of_one_process(
    parts, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, placed: Placement
) -> None:
    data = parts.Troubled(2)
    fit("single", data)
    from fedtalk.federation import client

    def fail(*arguments: object, **settings: object) -> None:
        raise AssertionError("a client is trained by itself in the main process")

    monkeypatch.setattr(client, "train_locally", fail)
    fit("placed", data, default_placement=placed)
    single, other = _adapters(tmp_path / "single"), _adapters(tmp_path / "placed")
    assert set(single) == set(other) == {"released", *data.clients}
    assert _difference(single, other) < (1e-3 if placed.kind == "single" else 5e-3)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_whoever_is_in_trouble_costs_its_own_adapter(
    parts, fit: Fit, tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    """Clips that aren't there, and a worker that is killed."""
    first, second, third = parts.Troubled(3).clients
    fit("well", parts.Troubled(3))
    fit("troubled", parts.Troubled(3, dies=0, no_clips=1), workers=workers)
    well, lives = _adapters(tmp_path / "well"), [first] if workers == 1 else []
    assert _same({name: well[name] for name in ("released", *lives, third)}, _adapters(tmp_path / "troubled"))
    if workers > 1:
        assert f"{first} could not be made: the worker that trained it ended (Actor" in caplog.text
    assert f"{second} could not be made: client {second} has no training clips" in caplog.text


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_full_disk_ends_the_run(parts, fit: Fit, workers: int) -> None:
    with pytest.raises(OutputError, match="no space left on device"):
        fit("run", parts.Troubled(2, full=1), workers=workers)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_stopped_by_a_signal_it_goes_on_with_what_is_missing(
    parts, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """SIGTERM comes once the first personal adapter is written."""
    data, save = parts.Troubled(4), Talker.save_adapter
    fit("through", data)

    written: list[str] = []

    def stopping(self: Talker, folder: Path) -> None:
        save(self, folder)
        written.append(folder.name)
        if len(written) == 2:  # once: a second signal would interrupt whatever is under way
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Talker, "save_adapter", stopping)
    with pytest.raises(Interrupted):
        fit("stopped", data, workers=workers)
    adapters, made = tmp_path / "stopped" / "adapters", []
    there = {path.parent.name for path in adapters.glob("personal/*/made_from.json")}
    assert 1 <= len(there) <= workers

    def counting(self: Talker, folder: Path) -> None:
        save(self, folder)
        made.append(folder.name)

    monkeypatch.setattr(Talker, "save_adapter", counting)
    fit("stopped", data, workers=workers, ckpt_path="last")
    assert sorted(made) == sorted({"released", *data.clients} - there)
    assert _same(_adapters(tmp_path / "through"), _adapters(tmp_path / "stopped"))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_it_is_neither_measured_nor_held_to_the_rounds_deadline(
    parts, fit: Fit, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(Talker, "reliability", fail)
    data = parts.Troubled(2)
    fit("run", data, workers=workers, local=LocalTraining(steps=1, batch_size=2, deadline_seconds=1e-6))
    assert set(_adapters(tmp_path / "run")) == {"released", *data.clients}


def test_an_adapter_carries_its_persons_consent_record(
    parts, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The latest one, also where the adapter was made before."""
    record, data = tmp_path / "consent.yaml", parts.Troubled(1)
    monkeypatch.setattr(parts.Troubled, "consent_record", lambda self, client: record)
    for text in ("person: anna\n", "person: anna\nrevoked: 2026-11-27\n"):
        record.write_text(text)
        fit("run", data)
        assert (tmp_path / "run" / "adapters" / "personal" / data.clients[0] / "consent.yaml").read_text() == text


def test_an_adapter_that_was_not_finished_is_made_again(
    parts, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of other settings, over a finished one: what was made from what must not be mixed up."""
    data, save = parts.Troubled(1), Talker.save_adapter
    fit("run", data)
    first = _adapters(tmp_path / "run")

    def fails(self: Talker, folder: Path) -> None:
        save(self, folder)
        if folder.name != "released":
            raise OutputError("no space left on device")

    monkeypatch.setattr(Talker, "save_adapter", fails)
    with pytest.raises(OutputError):
        fit("run", data, local=LocalTraining(steps=1, batch_size=1))
    assert not _same(first, _adapters(tmp_path / "run"))
    monkeypatch.setattr(Talker, "save_adapter", save)
    fit("run", data)
    assert _same(first, _adapters(tmp_path / "run"))
