"""A run that was killed and goes on ends with the bits of one that never stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedtalk.callbacks.aggregation import ISFA
from fedtalk.callbacks.base import RoundCallback
from fedtalk.errors import ArtifactError
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.federation.server import ServerOptimizer
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.training.local import LocalTraining

LOCAL = LocalTraining(steps=3, batch_size=2, learning_rate=0.05, schedule="cosine", warmup_steps=4)
KEEPING = LocalTraining(steps=3, batch_size=2, learning_rate=0.05, keep_optimizer=True)


class Killed(BaseException):
    """Not an Exception: nothing on the way may catch it."""


class KillAt(RoundCallback):
    """Stops everything at a step or at the end of a round (which is after its checkpoint)."""

    def __init__(self, round_number: int, step: int | None) -> None:
        self.round_number, self.step = round_number, step

    def on_local_step(self, trainer: FederatedTrainer, client: str, step: int, steps: int, losses: dict) -> None:
        if self.step == step and trainer.round_number == self.round_number and client != trainer.data.clients[0]:
            raise Killed

    def on_round_end(self, trainer: FederatedTrainer, module: object, outcome: object) -> None:
        if self.step is None and trainer.round_number == self.round_number:
            raise Killed


def _aggregation(optimizer: str) -> ISFA:
    rate = 1.0 if optimizer == "sgd" else 0.1
    return ISFA(gamma=1.0, server_optimizer=ServerOptimizer(optimizer, rate))


def _checkpoint(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def _same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))  # type: ignore[arg-type]
    return one == other


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "yogi"])
@pytest.mark.parametrize("kill", [(2, None), (2, 1)], ids=["between rounds", "in a round"])
def test_killed_and_resumed_is_uninterrupted(run, people, tmp_path: Path, optimizer: str, kill: tuple) -> None:
    settings = {"rounds": 5, "cohort": PoissonCohort(0.8), "local": LOCAL}
    through = run(people, _aggregation(optimizer), folder="through", **settings)
    with pytest.raises(Killed):
        run(people, _aggregation(optimizer), folder="killed", callbacks=[KillAt(*kill)], **settings)
    assert _checkpoint(tmp_path / "killed")["round"] == 2
    torch.manual_seed(99)  # whatever else happened in the new process
    resumed = run(people, _aggregation(optimizer), folder="killed", ckpt_path="last", **settings)
    assert len(resumed.recorder.outcomes) == 3
    for name in through.state:
        assert torch.equal(through.state[name], resumed.state[name])
    assert _same(_checkpoint(tmp_path / "through"), _checkpoint(tmp_path / "killed"))
    cohorts = [outcome.cohort for outcome in through.recorder.outcomes]
    assert cohorts[2:] == [outcome.cohort for outcome in resumed.recorder.outcomes]


def test_kept_optimizers_are_resumed_too(run, people, tmp_path: Path) -> None:
    one = {"anna": people["anna"]}
    through = run(one, folder="through", rounds=4, local=KEEPING)
    with pytest.raises(Killed):
        run(one, folder="killed", rounds=4, local=KEEPING, callbacks=[KillAt(2, None)])
    resumed = run(one, folder="killed", rounds=4, local=KEEPING, ckpt_path="last")
    assert all(torch.equal(through.state[name], resumed.state[name]) for name in through.state)
    assert _same(_checkpoint(tmp_path / "through"), _checkpoint(tmp_path / "killed"))
    kept = sorted((tmp_path / "killed" / "clients" / "anna").iterdir())
    assert [path.name for path in kept] == ["2.ckpt", "3.ckpt"]
    assert int(torch.load(kept[-1], weights_only=True)["optimizer"]["state"][0]["step"]) == 12
    forgetful = run(one, folder="forgetful", rounds=4, local=LocalTraining(steps=3, batch_size=2, learning_rate=0.05))
    assert not torch.equal(forgetful.state["first"], through.state["first"])  # so keeping them does matter


def test_a_round_run_again_starts_from_the_optimizer_before_it(run, people, tmp_path: Path) -> None:
    """Killed after a client had written its state and before the round's checkpoint."""
    two = {name: people[name] for name in ("anna", "bert")}
    through = run(two, folder="through", rounds=4, local=KEEPING)
    with pytest.raises(Killed):
        run(two, folder="killed", rounds=4, local=KEEPING, callbacks=[KillAt(2, 1)])
    assert (tmp_path / "killed" / "clients" / "anna" / "2.ckpt").exists() and _checkpoint(tmp_path / "killed")[
        "round"
    ] == 2
    resumed = run(two, folder="killed", rounds=4, local=KEEPING, ckpt_path="last")
    assert all(torch.equal(through.state[name], resumed.state[name]) for name in through.state)


def test_a_checkpoint_of_another_run_brings_its_optimizers(run, people, tmp_path: Path) -> None:
    one = {"anna": people["anna"]}
    through = run(one, folder="through", rounds=4, local=KEEPING)
    run(one, folder="first", rounds=2, local=KEEPING)
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    resumed = run(one, folder="second", rounds=4, local=KEEPING, ckpt_path=str(last))
    assert all(torch.equal(through.state[name], resumed.state[name]) for name in through.state)
    (tmp_path / "first" / "clients").rename(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=r"optimizer states in .*clients, which does not exist; copy that folder"):
        run(one, folder="third", rounds=4, local=KEEPING, ckpt_path=str(last))


def test_same_seed_same_bits_other_seed_other_bits(run, people) -> None:
    runs = [run(people, folder=f"{number}", rounds=2, seed=seed) for number, seed in enumerate((3, 3, 4))]
    assert all(torch.equal(runs[0].state[name], runs[1].state[name]) for name in runs[0].state)
    assert not torch.equal(runs[0].state["first"], runs[2].state["first"])


def test_last_without_a_checkpoint_starts_from_the_beginning(run, people) -> None:
    fresh, asked = run(people, folder="fresh"), run(people, folder="asked", ckpt_path="last")
    assert all(torch.equal(fresh.state[name], asked.state[name]) for name in fresh.state)


def test_a_finished_run_does_nothing_more(run, people) -> None:
    done = run(people, rounds=2)
    again = run(people, rounds=2, ckpt_path="last")
    assert again.recorder.outcomes == []
    assert all(torch.equal(done.state[name], again.state[name]) for name in done.state)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_checkpoint_cut_short_is_a_clear_error_and_is_kept(run, people, tmp_path: Path, share: float) -> None:
    run(people, rounds=1)
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArtifactError, match=r"last\.ckpt can't be read .*cut short"):
        run(people, rounds=2, ckpt_path="last")
    assert path.read_bytes() == content[: int(share * len(content))]


def test_what_does_not_fit_is_refused(run, people, colours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(people, rounds=1)
    with pytest.raises(ArtifactError, match="belongs to seed 0, this run has seed 1"):
        run(people, rounds=2, ckpt_path="last", seed=1)
    with pytest.raises(ArtifactError, match="no such file"):
        run(people, rounds=2, ckpt_path=str(tmp_path / "none.ckpt"))
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}}, foreign)
    with pytest.raises(ArtifactError, match="was not written by fedtalk"):
        run(people, rounds=2, ckpt_path=str(foreign))
    monkeypatch.setattr(colours, "cache_key", lambda self: "another backbone")
    with pytest.raises(ArtifactError, match="made for another model"):
        run(people, rounds=2, ckpt_path="last")
    monkeypatch.undo()
    monkeypatch.setattr(colours, "exchanged_parameters", lambda self: {"first": self.first})
    with pytest.raises(ArtifactError, match="made for another model"):
        run(people, rounds=2, ckpt_path="last")


def test_a_checkpoint_holds_no_code(run, people, tmp_path: Path) -> None:
    """A pickle that would run something is refused, not run."""
    import pickle

    class Evil:
        def __reduce__(self) -> tuple:
            return Path(tmp_path / "executed").touch, ()

    run(people, rounds=1)
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    path.write_bytes(pickle.dumps({"fedtalk": Evil()}))
    with pytest.raises(ArtifactError, match="can't be read"):
        run(people, rounds=2, ckpt_path="last")
    assert not (tmp_path / "executed").exists()


def test_a_full_disk_keeps_the_last_checkpoint(run, people, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from fedtalk.errors import OutputError

    run(people, rounds=1)
    before = _checkpoint(tmp_path / "run")
    written = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.suffix == ".ckpt":
            written(self, bytes(data)[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device"):
        run(people, rounds=2, ckpt_path="last")
    monkeypatch.undo()
    assert _same(before, _checkpoint(tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["last.ckpt"]
    assert run(people, rounds=2, ckpt_path="last").trainer.round_number == 2


def test_a_disk_that_becomes_read_only_keeps_the_last_checkpoint(
    run, people, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an error of the device: the kernel mounts it again without writing."""
    import errno
    import tempfile

    from fedtalk.errors import OutputError

    run(people, rounds=1)
    before = _checkpoint(tmp_path / "run")

    def refuse(**settings: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", refuse)
        with pytest.raises(OutputError, match="Read-only file system"):
            run(people, rounds=2, ckpt_path="last")
    assert _same(before, _checkpoint(tmp_path / "run"))
    assert run(people, rounds=2, ckpt_path="last").trainer.round_number == 2


def test_what_a_killed_writer_left_behind_is_removed(run, people, tmp_path: Path) -> None:
    run(people, rounds=1)
    half = tmp_path / "run" / "checkpoints" / ".part-last-x7.ckpt"
    half.write_bytes(b"half")
    run(people, rounds=2, ckpt_path="last")
    assert [path.name for path in half.parent.iterdir()] == ["last.ckpt"]


def test_an_output_folder_that_cant_be_written_is_found_before_any_work(run, people, tmp_path: Path) -> None:
    from fedtalk.errors import OutputError

    (tmp_path / "run").write_text("a file where the folder should be")
    opened = []

    class Watch(RoundCallback):
        def on_round_start(self, *arguments: object) -> None:
            opened.append(arguments)

    with pytest.raises(OutputError, match="cannot write"):
        run(people, callbacks=[Watch()])
    assert opened == []


def test_a_run_without_rounds_leaves_what_it_would_have_begun_with(run, people, colours, colour_data) -> None:
    done = run(people, rounds=0)
    assert done.recorder.outcomes == [] and all(not value.any() for value in done.state.values())
    (measured,) = done.trainer.validate(colours(), colour_data(people), ckpt_path="last")
    assert measured["loss"] > 0
    assert run(people, rounds=1, ckpt_path="last").recorder.outcomes[0].round_number == 0
