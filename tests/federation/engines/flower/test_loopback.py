"""The real thing on loopback: a SuperLink, SuperNodes, TLS, node authentication; each party a process of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
import yaml
from ready import begin

pytest.importorskip("flwr", reason="Flower needs Python 3.11", exc_type=ImportError)

from fedtalk.cli import main
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.federation.client import ClientHalf
from fedtalk.federation.engines.flower.keys import write_keys
from fedtalk.federation.local_work import LocalWork

ROOT = Path(__file__).parents[4]
SIZE = 32
PEOPLE = {"north": ["anna"], "south": ["bert"], "east": ["cora", "dora"]}


class Parties:
    """Processes of a federation in a folder, all of them ended with it."""

    def __init__(self, folder: Path, backbone: Path, sites: dict[str, list[str]], rounds: int) -> None:
        self.folder, self.sites, self.running = folder, sites, dict[str, subprocess.Popen]()
        self.ready = False
        """Whether parties are forks of a process that has imported fedtalk; what they are isn't on their command line then."""
        self.port = _free_port()
        write_keys(folder / "keys", ["127.0.0.1"], [*sites, "stranger"])
        for number, client in enumerate(sorted(client for clients in sites.values() for client in clients)):
            clips = [make_clip(Speaker.draw(0, "private", number), take, 24, SIZE) for take in (0, 1)]
            site = next(site for site, clients in sites.items() if client in clients)
            for place in (folder / "all" / client, folder / site / client):
                place.mkdir(parents=True)
                for take, clip in enumerate(clips):
                    clip.save(place / f"{take}.npz")
        privacy = {"clip_norm": 1.0, "assumptions": {"colluding_fraction": 0.0, "dropout_fraction": 0.3}}
        config = {
            "model": {"class_path": "fedtalk.talker.module.Talker", "init_args": {
                "backbone": str(backbone), "adapter": {"rank": 2, "alpha": 4.0}, "window": 4, "stride": 4,
                "sampling_steps": 1}},
            "data": {"class_path": "fedtalk.data.folder_data.FolderData",
                     "init_args": {"root": "at each site", "size": SIZE, "held_out_seconds": 0.36}},
            "trainer": {
                "rounds": rounds, "validate_every": 0, "accelerator": "cpu", "threads": 1,
                "local": {"steps": 2, "batch_size": 2},
                "cohort": {"class_path": "fedtalk.federation.cohort.PoissonCohort", "init_args": {"rate": 1.0}},
                "aggregation": {"class_path": "ISFA", "init_args": {"gamma": 1.0}}, "privacy": privacy,
                "personal": {"steps": 1},
            },
        }  # fmt: skip
        (folder / "config.yaml").write_text(yaml.safe_dump(config))

    def start(self, name: str, command: str, arguments: Sequence[str]) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "JSONARGPARSE_DEPRECATION_WARNINGS": "off"}
        told = [
            "flower", command, "--config", str(self.folder / "config.yaml"), "--trainer.default_root_dir",
            str(self.folder / f"run_{name}"), "--trainer.cache_dir", str(self.folder / f"cache_{name}"), *arguments,
        ]  # fmt: skip
        if self.ready:
            self.running[name] = Forked(begin(main, told, log=self.folder / f"{name}.log"))  # type: ignore[assignment]
            return
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "fedtalk.cli", *told], cwd=ROOT, env=environment, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def start_server(self, *further: str, **settings: object) -> None:
        keys = self.folder / "keys"
        public = ",".join(str(keys / "sites" / f"{site}.pub") for site in self.sites)
        options = {"host": "127.0.0.1", "port": self.port, "training_seconds": 120, "answer_seconds": 60, **settings}
        self.start("server", "server", [
            "--flower.certificate", str(keys / "server.crt"), "--flower.private_key", str(keys / "server.key"),
            "--flower.signing_key", str(keys / "signing.key"),
            "--flower.sites", f"[{public}]", *[f"--flower.{name}={value}" for name, value in options.items()],
            *further,
        ])  # fmt: skip

    def start_site(self, name: str, clips: str | None = None) -> None:
        self.start(name, "client", [
            "--data.init_args.root", str(self.folder / (clips or name)),
            "--flower.superlink", f"127.0.0.1:{self.port}", "--flower.port", str(_free_port()),
            "--flower.authority", str(self.folder / "keys" / "authority.crt"),
            "--flower.server", str(self.folder / "keys" / "server.pub"),
            "--flower.ledger", str(self.folder / f"ledger_{name}"),
            "--flower.private_key", str(self.folder / "keys" / "sites" / f"{name}.key"),
        ])  # fmt: skip

    def text(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def wait_for(self, name: str, text: str, seconds: float = 400.0, after: str = "") -> None:
        end = time.monotonic() + seconds
        while text not in self.text(name)[max(0, self.text(name).find(after)) :]:
            assert self.running[name].poll() is None, self.text(name)
            assert time.monotonic() < end, f"{text!r} expected in:\n{self.text(name)}"
            time.sleep(0.05)

    def end_of(self, name: str, seconds: float = 400.0) -> int:
        end = time.monotonic() + seconds
        while (status := self.running[name].poll()) is None and time.monotonic() < end:
            for other, process in self.running.items():  # nobody may fail while another one waits for it
                assert process.poll() in (None, 0, -signal.SIGKILL, 143), f"{other}:\n{self.text(other)}"
            time.sleep(0.1)
        assert status is not None, f"{name} goes on:\n{self.text(name)}"
        return status

    def pids(self, *words: str) -> list[int]:
        """Processes on whose command line stand this folder and all of ``words``."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has just ended
                continue
            if str(self.folder) in line and all(word in line for word in words):
                found.append(int(path.parent.name))
        return found

    def gone(self, seconds: float = 20.0) -> bool:
        end = time.monotonic() + seconds
        while self.pids() and time.monotonic() < end:
            time.sleep(0.1)
        return not self.pids()

    def state(self, run: str) -> dict[str, torch.Tensor]:
        return torch.load(self.folder / run / "checkpoints" / "last.ckpt", weights_only=True)["server"]["state"]

    def fit_in_process(self) -> None:
        assert main([
            "fit", "--config", str(self.folder / "config.yaml"), "--data.init_args.root", str(self.folder / "all"),
            "--trainer.default_root_dir", str(self.folder / "run_alone"),
            "--trainer.cache_dir", str(self.folder / "cache_alone"),
        ]) == 0  # fmt: skip


class Forked:
    """A process of `ready`, asked as one of `subprocess` is."""

    def __init__(self, process: BaseProcess) -> None:
        self.process = process

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, seconds: float) -> None:
        self.process.kill()
        self.process.join(seconds)


@pytest.fixture
def parties(tmp_path: Path, tiny_backbone: Path) -> Iterator:
    made: list[Parties] = []

    def make(sites: dict[str, list[str]], rounds: int) -> Parties:
        made.append(Parties(tmp_path, tiny_backbone, sites, rounds))
        return made[-1]

    yield make
    for one in made:
        for pid in one.pids():
            os.kill(pid, signal.SIGKILL)
        for process in one.running.values():
            process.wait(10)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.timeout(900)
def test_sites_give_the_in_process_result_to_the_bit(parties) -> None:
    federation = parties({"north": ["anna", "bert"], "east": ["cora"]}, rounds=1)
    federation.ready = True
    federation.start_server()
    for site in federation.sites:
        federation.start_site(site)
    assert federation.end_of("server") == 0, federation.text("server")
    for site in federation.sites:
        assert federation.end_of(site) == 0, federation.text(site)
    federation.fit_in_process()
    got = federation.state("run_server")
    assert _equal(got, federation.state("run_alone")) and max(float(value.abs().max()) for value in got.values()) > 1e-3
    assert (federation.folder / "run_east" / "adapters" / "personal" / "cora" / "adapter_model.safetensors").exists()
    assert not (
        federation.folder / "run_server" / "adapters" / "personal" / "cora"
    ).exists()  # personal ones stay at their sites
    assert federation.gone(), federation.pids()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_site_killed_in_mid_round_is_a_client_that_failed(parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """North has shared its secrets in round 1 and is killed before its masked vector; a stranger's key gets nowhere."""
    federation = parties(PEOPLE, rounds=3)
    federation.start_server(answer_seconds=30)
    for site in federation.sites:
        federation.start_site(site)
    federation.start_site("stranger", clips="north")
    federation.wait_for("server", "round 1, shares: 4 of 4 clients answered")
    for pid in federation.pids("north.key"):  # the site and its SuperNode
        os.kill(pid, signal.SIGKILL)
    federation.wait_for("server", "round 1, input: 3 of 4 clients answered")
    assert federation.end_of("server") == 0, federation.text("server")
    for site in ("south", "east"):
        assert federation.end_of(site) == 0, federation.text(site)
    assert "does not take the key flower.private_key" in federation.text("stranger")
    work = ClientHalf.work

    def failing(self: ClientHalf, client: str, asked: LocalWork, *rest: object) -> object:
        if client == "anna" and asked.round_number >= 1:
            raise OSError("gone")
        return work(self, client, asked, *rest)

    monkeypatch.setattr(ClientHalf, "work", failing)
    federation.fit_in_process()
    assert _equal(federation.state("run_server"), federation.state("run_alone"))
    federation.running["stranger"].send_signal(signal.SIGINT)
    assert federation.end_of("stranger") == 130
    assert federation.gone(), federation.pids()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_site_and_a_server_that_were_killed_are_started_again(parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both with the command that they had: north gives updates again, the server goes on after its last round."""
    federation = parties(PEOPLE, rounds=15)
    federation.start_server("--ckpt_path", "last", answer_seconds=30)
    for site in federation.sites:
        federation.start_site(site)
    federation.wait_for("server", "round 1, shares: 4 of 4 clients answered")
    for pid in federation.pids("north.key"):
        os.kill(pid, signal.SIGKILL)
    federation.running["north"].wait(10)
    federation.start_site("north")
    federation.wait_for("server", "round 1, input: 3 of 4 clients answered")
    federation.wait_for("north", "anna train")
    federation.wait_for("server", "input: 4 of 4 clients answered\n", after="round 1, input")
    log = federation.text("server")
    federation.running["server"].kill()
    federation.running["server"].wait(10)
    federation.start_server("--ckpt_path", "last", answer_seconds=30)  # the sites have gone on waiting
    for name in ("server", *federation.sites):
        assert federation.end_of(name) == 0, federation.text(name)
    assert "going on after round" in federation.text("server")
    summed = dict(re.findall(r"round (\d+), input: (\d+) of", log + federation.text("server")))
    missing = {int(number) for number, clients in summed.items() if clients == "3"}
    assert len(summed) == 15 and 1 in missing and len(missing) < 14
    work = ClientHalf.work

    def failing(self: ClientHalf, client: str, asked: LocalWork, *rest: object) -> object:
        if client == "anna" and asked.round_number in missing:
            raise OSError("gone")
        return work(self, client, asked, *rest)

    monkeypatch.setattr(ClientHalf, "work", failing)
    federation.fit_in_process()
    assert _equal(federation.state("run_server"), federation.state("run_alone"))
    assert federation.gone(), federation.pids()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_asked_to_stop_both_sides_end_with_their_children_and_the_run_goes_on(parties) -> None:
    federation = parties({"north": ["anna"], "south": ["bert"], "east": ["cora"]}, rounds=2)
    federation.start_server()
    for site in federation.sites:
        federation.start_site(site)
    federation.wait_for("server", "round 1, train: 3 of 3 clients answered")
    federation.running["server"].send_signal(signal.SIGTERM)
    assert federation.end_of("server") == 143, federation.text("server")
    assert "--ckpt_path last" in federation.text("server")
    assert not federation.pids("superlink_program")
    federation.start_server("--ckpt_path", "last")  # the sites have gone on waiting
    assert federation.end_of("server") == 0, federation.text("server")
    for site in federation.sites:
        assert federation.end_of(site) == 0, federation.text(site)
    federation.fit_in_process()
    assert _equal(federation.state("run_server"), federation.state("run_alone"))
    assert federation.gone(), federation.pids()
