"""One trusted cluster: a launcher (torchrun, SLURM's srun) starts the same command on every rank; rank 0 coordinates.

Rank 0 is the coordinator: server, sealing, checkpoints, monitors and all secrets are there. All other ranks build trainer, model
and data from the same config and become its workers: only tasks and results cross the network.

This trusts the cluster's network as ``torch.distributed`` itself does. Address and key are passed on through the launcher's
store, which has no access control; messages are neither encrypted nor signed, and they are pickles: whoever can read the store
or the network can run code on the ranks and sees clients' updates in the clear. Across organisations:
`fedtalk.federation.engines.flower`.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import logging
import os
import secrets
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from torch.distributed.rendezvous import rendezvous

from fedtalk.errors import ConfigurationError
from fedtalk.federation import worker
from fedtalk.federation.client import ClientHalf
from fedtalk.federation.client_states import ClientStates
from fedtalk.federation.engines.flower.agreement import agreement_of
from fedtalk.federation.engines.in_process import Failure
from fedtalk.federation.federation import Federation
from fedtalk.federation.interruption import StopSignals
from fedtalk.federation.local_work import LocalWork
from fedtalk.federation.placement import SINGLE, Placement, Placements
from fedtalk.federation.workers import PARTING_SECONDS, Team, WorkerError, Workers

log = logging.getLogger(__name__)

JOIN_SECONDS = 600.0
"""How long ranks wait for each other at the start."""
GREETING_SECONDS = 10.0
"""What a connection has to show its key."""
SILENCE_SECONDS = 60
"""After so long without any answer from its machine the other side is taken to be gone."""
GIVEN_UP_SECONDS = 600.0
"""A rank can't be killed from here: so long it may go on with a task that was given up before the run does without it."""

KEY = "fedtalk/coordinator"
TOKEN_BYTES = 32
GREETING_BYTES = TOKEN_BYTES + 4
"""The token, and the rank's number."""


@dataclass(frozen=True)
class Rank:
    """Which process of a launcher's this is."""

    number: int
    """0 is the coordinator."""
    size: int
    """Ranks in all, 2 or more."""
    local: int
    """Among those of its machine."""
    address: str
    port: int
    """Where the launcher's store is, or rank 0 is to host it."""

    def devices(self, accelerator: str) -> list[int] | int:
        """Lightning's ``devices`` of one process: a machine's GPUs are shared out among its ranks."""
        gpus = torch.cuda.device_count() if accelerator in ("auto", "cuda", "gpu") else 0
        return [self.local % gpus] if gpus else 1


def this_rank() -> Rank | None:
    """This process's rank; None where no launcher started it, or started it alone.

    Raises:
        ConfigurationError: SLURM's settings don't fit together.
    """
    for kind in (TorchElasticEnvironment, SLURMEnvironment):  # torchrun may itself be started by srun
        if not kind.detect():
            continue
        try:
            environment = kind()
        except RuntimeError as error:
            raise ConfigurationError(f"cluster: {error}") from error
        if environment.world_size() == 1:
            return None
        return Rank(
            environment.global_rank(), environment.world_size(), environment.local_rank(), environment.main_address,
            environment.main_port,
        )  # fmt: skip
    return None


def check_kinds(placements: Placements) -> None:
    """
    Raises:
        ConfigurationError: several ranks would have to take a client together.
    """
    for key, placed in placements:
        if placed.kind != "single":
            raise ConfigurationError(
                f"{key}: under a launcher every rank takes clients by itself: expected kind single, got {placed.kind}. "
                "Processes of one machine take a client together where fedtalk starts them itself: run without torchrun or srun"
            )


class Cluster(Workers):
    """The coordinator's engine: the other ranks of the launcher do clients' local work, to the same bits as one process.

    A rank that is lost costs its client's update; the run goes on with those that are left, and ends when there are none.
    """

    def __init__(self, rank: Rank) -> None:
        super().__init__(rank.size - 1, None)
        self._rank = rank

    def gather(self) -> None:
        """Wait for all other ranks, each of which gets ready meanwhile. The first thing of a fit: from here on whatever ends this
        process ends them too.

        Raises:
            WorkerError: not all came within `JOIN_SECONDS`.
        """
        missing = set(range(1, self._rank.size))
        teams: list[Team] = []
        self._teams = {SINGLE: teams}
        end = time.monotonic() + JOIN_SECONDS
        store = _store(self._rank)
        host, listen = _own_address(self._rank.address)
        token = secrets.token_bytes(TOKEN_BYTES)
        with socket.create_server((listen, 0), family=_family(listen), backlog=self._rank.size) as server:
            store.set(KEY, f"{host} {server.getsockname()[1]} {token.hex()}")
            while missing:
                server.settimeout(max(0.1, end - time.monotonic()))
                try:
                    peer, _ = server.accept()
                except TimeoutError:
                    raise WorkerError(
                        f"cluster: ranks {sorted(missing)} have not come within {JOIN_SECONDS:g} s; expected the same command on "
                        f"all {self._rank.size} ranks, and this machine to be reached at any port. Their own output says more"
                    ) from None
                number = _greeted(peer, token)
                if number in missing:
                    missing.discard(number)
                    teams.append(RankTeam(number, _connection(peer)))
                else:
                    peer.close()
        log.info("cluster: %d ranks have joined", len(teams))

    def _form_teams(self, federation: Federation) -> dict[Placement, list[Team]]:
        expected = _agreement(federation)
        for team in self._teams[SINGLE]:
            assert isinstance(team, RankTeam)
            team.expected, team.states = expected, federation.client_states
        return self._teams

    def _hear(self, teams: Sequence[Team]) -> Iterator[tuple[str, Any]]:
        if not any(team.connections for team in teams):
            raise WorkerError(
                f"all {self._rank.size - 1} other ranks are lost; expected at least one that trains clients. The warnings above "
                "say why; start the same command on all ranks again with --ckpt_path last"
            )
        yield from super()._hear(teams)


class RankTeam(Team):
    """Another rank. It can't be killed or started again from here: given up, it is busy until it comes to an end by itself."""

    patience = GIVEN_UP_SECONDS

    def __init__(self, number: int, connection: Connection) -> None:
        super().__init__(SINGLE)
        self.number, self.connections = number, [connection]
        self.expected: Mapping[str, str] = {}
        self.states: ClientStates

    @property
    def starting(self) -> bool:
        return not self._ready and bool(self.connections)

    @property
    def idle(self) -> bool:
        return super().idle and bool(self.connections)

    def start(self) -> None:
        self._silent = set(self.connections)

    def heard(self, connection: Connection, kind: str, content: Any) -> Iterator[tuple[str, Any]]:
        """
        Raises:
            ConfigurationError: the rank would train something else.
        """
        if kind == "ready" and content != self.expected:
            differing = sorted(
                f"{topic}: {self.expected.get(topic)!r:.80}, rank {self.number} {content.get(topic)!r:.80}"
                for topic in self.expected.keys() | content.keys()
                if self.expected.get(topic) != content.get(topic)
            )
            raise ConfigurationError(
                f"cluster: expected the same command and the same versions on every rank, got {'; '.join(differing)}"
            )
        yield from super().heard(connection, kind, content)

    def _optimizers(self, clients: Sequence[str], work: LocalWork) -> dict[str, Any] | None:
        if not work.local.keep_optimizer:
            return None
        found: dict[str, Any] = {}
        for client in clients:
            try:
                found[client] = self.states.load(client, work.round_number)
            except Exception as error:  # as in one process, it costs this client's update
                found[client] = error
        return found

    def died(self, connection: Connection) -> Iterator[tuple[str, Any]]:
        clients, given_up = self.clients, self.given_up
        self._drop("ended")
        failure = Failure.of(WorkerError(f"rank {self.number}, which trained it, ended"))
        for client in [] if given_up else clients:
            yield client, self.rejected.get(client, failure)

    def _lost(self, failure: Failure) -> Iterator[tuple[str, Any]]:
        if self.given_up:
            self._drop(f"has not come to an end {self.patience:g} s after its task was given up")
            return
        self.give_up()
        log.warning("rank %d: %s; it gets no other client until it has come to an end", self.number, failure.message)
        for client in self.clients:
            yield client, self.rejected.get(client, failure)

    def _drop(self, why: str) -> None:
        log.warning("rank %d %s; the run goes on without it", self.number, why)
        self.clients = []
        self.dismiss()

    def end(self, patience: float) -> None:
        """Let go of the rank; it ends by itself, also where it hangs."""
        self.dismiss()


def work_for_coordinator(rank: Rank, federation: Callable[[], Federation], stop_signals: StopSignals) -> None:
    """What a rank other than 0 does in a fit: local work, until the coordinator is done or gone.

    Args:
        rank: this one.
        federation: connects module and data; called once the coordinator is found.
        stop_signals: of the fit.

    Raises:
        WorkerError: there is no coordinator.
        Interrupted: SIGTERM or SIGINT came; whether and when the run stops was up to the coordinator.
    """
    connection = _join(rank)
    over = threading.Event()
    _end_with_coordinator(connection, over)
    with connection, stop_signals:
        known = federation()
        worker.serve(connection, ClientHalf(known), 0, _agreement(known))
        over.set()
    log.info("rank %d: the coordinator has ended, and so does this rank", rank.number)
    stop_signals.check()


def _agreement(federation: Federation) -> dict[str, str]:
    """By topic, what must be equal on all ranks for the same bits."""
    return {
        **agreement_of(federation),
        "torch version": torch.__version__,
        "data.clients": ", ".join(federation.data.clients),
        "trainer.local.deadline_seconds": str(federation.local.deadline_seconds),
        "trainer.placements": str([(key, asdict(placed)) for key, placed in federation.placements]),
        "trainer.precision": federation.precision,
        "trainer.accelerator": federation.device.type,
        "trainer.threads": str(torch.get_num_threads()),
    }


def _store(rank: Rank) -> torch.distributed.Store:
    """The launcher's store, or one that rank 0 hosts: where ``torch.distributed`` would meet too."""
    host = f"[{rank.address}]" if ":" in rank.address else rank.address
    url = f"tcp://{host}:{rank.port}?rank={rank.number}&world_size={rank.size}"
    try:
        store, _, _ = next(iter(rendezvous(url, timeout=timedelta(seconds=JOIN_SECONDS))))
    except RuntimeError as error:
        raise WorkerError(
            f"rank {rank.number} of {rank.size} did not find the others at {rank.address}:{rank.port} within "
            f"{JOIN_SECONDS:g} s: {str(error).splitlines()[0]}. Expected the same command on every rank: under SLURM start it "
            "with srun, with torchrun give all machines the same --master_addr and --master_port"
        ) from error
    return store


def _join(rank: Rank) -> Connection:
    store = _store(rank)
    try:
        host, port, token = store.get(KEY).decode().split()
        peer = socket.create_connection((host, int(port)), timeout=JOIN_SECONDS)
        peer.sendall(bytes.fromhex(token) + struct.pack("!I", rank.number))
    except (RuntimeError, OSError) as error:
        raise WorkerError(
            f"rank {rank.number} found no coordinator: {str(error).splitlines()[0]}. Expected rank 0 to run the same command, "
            "and its machine to be reached at any port from this one"
        ) from error
    return _connection(peer)


def _greeted(peer: socket.socket, token: bytes) -> int | None:
    """The rank that shows the token; None for whoever doesn't."""
    peer.settimeout(GREETING_SECONDS)
    said = b""
    with contextlib.suppress(OSError):
        while len(said) < GREETING_BYTES:
            part = peer.recv(
                GREETING_BYTES - len(said)
            )  # and no byte more: the rank's first message may have come already
            if not part:
                return None
            said += part
    if len(said) < GREETING_BYTES or not hmac.compare_digest(said[:TOKEN_BYTES], token):
        return None
    return int(struct.unpack("!I", said[TOKEN_BYTES:])[0])


def _connection(peer: socket.socket) -> Connection:
    """As of a worker on this machine; a machine that loses its power or its network is noticed after `SILENCE_SECONDS`."""
    peer.settimeout(None)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    options = {"TCP_KEEPIDLE": SILENCE_SECONDS // 4, "TCP_KEEPINTVL": SILENCE_SECONDS // 4, "TCP_KEEPCNT": 3,
               "TCP_USER_TIMEOUT": 1000 * SILENCE_SECONDS}  # fmt: skip
    for name, value in options.items():
        if hasattr(socket, name):  # all of them on Linux
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return Connection(peer.detach())


def _own_address(main: str) -> tuple[str, str]:
    """Where the other ranks find this process, and the address to listen at."""
    found = socket.getaddrinfo(main, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(found[0], socket.SOCK_DGRAM) as probe:
        probe.connect(found[4])  # sends nothing; the system chooses the address that this route starts from
        own = str(probe.getsockname()[0])
    if ipaddress.ip_address(own).is_loopback and main not in (own, "localhost"):
        return main, ""  # a host that knows itself by a loopback address, and is known to others by its name
    return own, own


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _end_with_coordinator(connection: Connection, over: threading.Event) -> None:
    """No rank outlives its coordinator by more than `PARTING_SECONDS`, also where it hangs in a step."""
    if not hasattr(select, "POLLRDHUP"):  # elsewhere than on Linux a rank notices after its step
        return
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLRDHUP)

    def wait() -> None:
        poll.poll()
        if not over.wait(PARTING_SECONDS):
            os._exit(0)  # how the run ended is the coordinator's to say

    threading.Thread(target=wait, daemon=True, name="coordinator").start()
