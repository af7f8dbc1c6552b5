"""Ranks of a launcher on this machine's loopback: the same bits as one process, and what is lost with a rank or all of them."""

from __future__ import annotations

import json
import multiprocessing
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fedtalk.errors import ConfigurationError
from fedtalk.federation.cluster import Rank, _greeted, this_rank
from fedtalk.federation.placement import Placement

HERE = Path(__file__).parent
PEOPLE = {f"client-{number}": "nothing" for number in range(4)}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch):
    """The fit that ranks run too."""
    monkeypatch.syspath_prepend(str(HERE))
    import cluster_rank

    return cluster_rank


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """What srun sets in the third of four tasks on two nodes."""
    for name in ("MASTER_ADDR", "MASTER_PORT"):  # Lightning sets them
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in {"NTASKS": "4", "NTASKS_PER_NODE": "2", "PROCID": "2", "LOCALID": "0", "NODEID": "1", "JOB_ID": "70042",
                        "JOB_NAME": "fedtalk", "NODELIST": "node[07-08]"}.items():  # fmt: skip
        monkeypatch.setenv(f"SLURM_{name}", value)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _ranks(here, count: int, folder: Path, settings: dict) -> list[multiprocessing.Process]:
    """With what torchrun sets; it itself would end all of them with the first one that dies."""
    folder.mkdir()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fedtalk.federation.trainer"])
    shared = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(count), "GROUP_RANK": "0",
        "LOCAL_WORLD_SIZE": str(count), "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    ranks = [
        context.Process(
            target=here.run, args=(folder, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, settings)
        )
        for rank in range(count)
    ]
    for rank in ranks:
        rank.start()
    return ranks


def _end(rank: multiprocessing.Process, seconds: float) -> int | None:
    rank.join(seconds)
    return rank.exitcode


def _outcomes(folder: Path) -> list[dict]:
    path = folder / "outcomes"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _state(folder: Path, name: str = "state.pt") -> dict[str, torch.Tensor]:
    return torch.load(folder / name, weights_only=True)


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_torchrun_gives_the_bits_of_one_process(here, tmp_path: Path) -> None:
    """Also after the last round; with ISFA, dropout and kept optimizers. Other ranks write nothing beside the cache."""
    settings = {"does": PEOPLE, "keep_optimizer": True}
    here.fit(tmp_path / "one", **settings)
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", "3", "--master_addr", "127.0.0.1"]
    launcher = subprocess.Popen(
        [sys.executable, *torchrun, "--master_port", str(_free_port()),
         str(HERE / "cluster_rank.py"), str(tmp_path / "ranks"), json.dumps(settings)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        _, log = launcher.communicate(timeout=250)
    finally:
        launcher.terminate()  # and with it its ranks, which a SIGKILL would leave behind
    assert launcher.returncode == 0, log
    for name in ("state.pt", "alone.pt"):
        assert _same(_state(tmp_path / "one", name), _state(tmp_path / "ranks", name))
    assert _outcomes(tmp_path / "one") == _outcomes(tmp_path / "ranks")
    assert (tmp_path / "ranks" / "0" / "run").is_dir()
    for rank in ("1", "2"):
        assert [path.name for path in (tmp_path / "ranks" / rank).iterdir()] == ["cache"]  # and both did some work


def test_a_rank_that_dies_costs_its_clients_update_only(here, tmp_path: Path) -> None:
    """One of two working ranks is killed in each round: the first goes on with the other, the second has none left."""
    here.fit(tmp_path / "without", PEOPLE, rounds=1)
    ranks = _ranks(here, 3, tmp_path / "ranks", {"does": {"dies": "die in step", **PEOPLE}})
    codes = [_end(rank, 250) for rank in ranks]
    log = (tmp_path / "ranks" / "log-0").read_text()
    assert codes == [1, -signal.SIGKILL, -signal.SIGKILL], log
    (outcome,) = _outcomes(tmp_path / "ranks")
    assert outcome["clients"] == list(PEOPLE) and list(outcome["failures"]) == ["dies"]
    assert outcome["failures"]["dies"].startswith("WorkerError: rank ")
    assert "WorkerError: all 2 other ranks are lost" in log
    saved = torch.load(tmp_path / "ranks" / "0" / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["round"] == 1 and _same(saved["server"]["state"], _state(tmp_path / "without"))


def test_ranks_that_hang_are_not_waited_for_and_end_with_the_coordinator(here, tmp_path: Path) -> None:
    """One hangs in the first round, the other one in the second; then the coordinator is killed."""
    folder = tmp_path / "ranks"
    ranks = _ranks(here, 3, folder, {"does": {"hangs": "hang in step", **PEOPLE}, "deadline_seconds": 5.0})
    try:
        end = time.monotonic() + 250
        log = folder / "log-0"
        while not log.exists() or log.read_text().count("it gets no other client") < 2:
            assert time.monotonic() < end and ranks[0].is_alive(), log.read_text()
            time.sleep(0.1)
        (outcome,) = _outcomes(folder)
        assert outcome["clients"] == list(PEOPLE)
        assert outcome["failures"]["hangs"].startswith("DeadlineError: client hangs was still at work")
        assert all(rank.is_alive() for rank in ranks)
        ranks[0].kill()
        assert [_end(rank, 30) for rank in ranks[1:]] == [0, 0]  # a step hangs for ten minutes
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()


def test_a_stranger_is_turned_away_and_a_ranks_first_message_stays_whole() -> None:
    token = bytes(range(32))
    for said, number in ((token + b"\0\0\0\x05" + b"more", 5), (bytes(32) + b"\0\0\0\x05", None), (token, None)):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(said)
            theirs.shutdown(socket.SHUT_WR)
            assert _greeted(ours, token) == number
            assert ours.recv(10) == said[36:]


def test_slurm_says_which_rank_this_is(slurm: None) -> None:
    assert this_rank() == Rank(number=2, size=4, local=0, address="node07", port=15042)


def test_a_launcher_of_one_process_is_none(slurm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert this_rank() is None


def test_settings_that_do_not_fit_a_cluster_are_refused(
    here, slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match=r"trainer\.default_placement: under a launcher .*single, got ddp"):
        here.parts.trainer(tmp_path, default_placement=Placement("ddp", 2))
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(ConfigurationError, match=r"cluster: .*--ntasks-per-node=4"):
        this_rank()


def test_other_commands_are_rank_0s(here, slurm: None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    trainer, module, data = here.parts.trainer(tmp_path), here.parts.Pull(), here.parts.People({})
    assert trainer.validate(module, data) == trainer.test(module, data) == trainer.predict(module, data) == []
    trainer.fit(module, data, dry_run=True)
    assert [record.message.split("`")[1] for record in caplog.records if "rank 2" in record.message] == [
        "fedtalk validate", "fedtalk test", "fedtalk predict", "fedtalk fit --dry_run",
    ]  # fmt: skip
    assert not list(tmp_path.iterdir())
