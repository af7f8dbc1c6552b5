"""Time one round of secure aggregation, without and with dropouts, and count its bytes.

    python scripts/bench_secagg.py --clients 30 --dim 1000000 --json

Times are those of one client's and of the server's own computations over the whole round, all exchanges together;
carrying bytes is not in them. Each is the minimum over the repeats (another load on the machine only adds). Beside them,
the time that the bare cipher takes for the same keystream on one core, in the same run. They are wall times, or with
``--cpu-time`` the processor's, over all threads, for a machine that is busy.

Clients all do the same work, so ``--measured`` of them stand for all (median). Of the others' pairwise masks those that two
of them share are left out: one adds what the other subtracts. No message's size, no step of the server and no sum differs
by that, and a thousand clients take minutes in place of an hour.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import time
from collections.abc import Callable, Container
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedtalk.privacy.fixed_point import FixedPoint
from fedtalk.privacy.secagg import Advertised, AggregationSettings, Assumptions, Enrolled, Shared, Stage, run_round
from fedtalk.privacy.secagg.masks import BLOCK_BYTES
from fedtalk.privacy.secagg.words import WORD_BITS

CLEAR_BYTES = 2
"""A clear coordinate of 16 bits, against which the expansion is counted."""


Clock = Callable[[], float]


@dataclass
class Measurement:
    """Minima over the repeats of one kind of round."""

    client_seconds: float
    server_seconds: float
    bytes_up: int
    cipher_seconds_per_mask: float


class Others(Enrolled):
    """A client that is there for the server's sake: it leaves out the masks that cancel against those of its like."""

    def __init__(self, client: int, settings: AggregationSettings, alike: Container[int]) -> None:
        super().__init__(client, settings)
        self._alike = alike

    def join(self, invitation: bytes) -> tuple[Advertised, bytes]:
        state, reply = super().join(invitation)
        return _OthersAdvertised(state, self._alike), reply  # type: ignore[return-value]


class _OthersAdvertised:
    def __init__(self, state: Advertised, alike: Container[int]) -> None:
        self._state, self._alike = state, alike

    def receive_roster(self, roster: bytes) -> tuple[Shared, bytes]:
        state, reply = self._state.receive_roster(roster)
        whole, alike = state._pair_masks, self._alike
        state._pair_masks = lambda peers: whole(peer for peer in peers if peer not in alike)  # type: ignore[method-assign]
        return state, reply


def measure(
    settings: AggregationSettings, clients: int, dropped: int, repeats: int, measured: int, clock: Clock
) -> Measurement:
    """Run rounds in which ``dropped`` clients vanish before they send their vectors, and check every sum."""
    generator, ring = np.random.default_rng(0), settings.ring
    bound = (ring.modulus // 2 - 1) // clients  # the sum has to lie in the ring's range
    samples = [ring.from_signed(generator.integers(-bound, bound + 1, settings.dimension)) for _ in range(3)]
    inputs = {client: samples[client % len(samples)] for client in range(clients)}
    lost = {client * clients // max(dropped, 1): Stage.INPUT for client in range(dropped)}
    staying = [client for client in range(clients) if client not in lost]
    whole = set(staying[:measured])
    alike = set(staying) - whole
    quickest: dict[int, float] = {}
    server, cipher, bytes_up = float("inf"), float("inf"), 0
    for _ in range(repeats):
        cipher = min(cipher, keystream_seconds(settings.words.count * WORD_BITS // 8, clock))
        members = {
            client: Others(client, settings, alike) if client in alike else Enrolled(client, settings)
            for client in inputs
        }
        report = run_round(inputs, settings, clients=members, drops=lost, clock=clock)
        counts = [sum(client % len(samples) == index for client in report.survivors) for index in range(len(samples))]
        expected = sum(
            sample.astype(np.uint64) * np.uint64(count) for sample, count in zip(samples, counts, strict=True)
        )
        if len(report.survivors) != clients - dropped or not np.array_equal(
            report.total, ring.reduce(np.asarray(expected).astype(ring.dtype))
        ):
            raise SystemExit("the sum is wrong: these times mean nothing")
        for client in whole:
            quickest[client] = min(quickest.get(client, float("inf")), report.client_seconds[client])
        server = min(server, report.server_seconds)
        bytes_up = max(report.bytes_up.values())
    return Measurement(statistics.median(quickest.values()), server, bytes_up, cipher)


def keystream_seconds(count: int, clock: Clock) -> float:
    """Seconds for ``count`` bytes of AES-256-CTR and nothing else."""
    zeros, buffer = bytes(BLOCK_BYTES), bytearray(BLOCK_BYTES + 16)
    stream = Cipher(algorithms.AES256(secrets.token_bytes(32)), modes.CTR(bytes(16))).encryptor()
    start = clock()
    for _ in range(-(-count // BLOCK_BYTES)):
        stream.update_into(zeros, buffer)
    return clock() - start


def encode_seconds(dimension: int, repeats: int, clock: Clock) -> float:
    """Seconds to rotate and round one vector."""
    fixed_point = FixedPoint(dimension, norm_bound=1.0, clients=1, bits=24)
    generator = np.random.default_rng(0)
    vector = generator.standard_normal(dimension)
    vector /= np.linalg.norm(vector) * 1.001
    rotation = fixed_point.rotation(seed=0)
    times = []
    for _ in range(repeats):
        start = clock()
        fixed_point.encode(vector, rotation, generator)
        times.append(clock() - start)
    return min(times)


def main() -> None:
    """Print one line of results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=30, help="size of the cohort")
    parser.add_argument("--dim", type=int, default=1_000_000, help="coordinates of a vector")
    parser.add_argument("--bits", type=int, default=20, help="width of the ring, 2 to 62")
    parser.add_argument("--dropout", type=float, default=0.1, help="share that vanishes in the round with dropouts")
    parser.add_argument("--colluding-fraction", type=float, default=Assumptions.colluding_fraction)
    parser.add_argument("--dropout-fraction", type=float, default=Assumptions.dropout_fraction)
    parser.add_argument("--repeats", type=int, help="rounds of either kind; 5 by default, 1 from 500 clients on")
    parser.add_argument("--measured", type=int, default=16, help="clients whose time is taken")
    parser.add_argument("--cpu-time", action="store_true", help="processor time in place of wall time")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    arguments = parser.parse_args()

    settings = AggregationSettings(
        session=secrets.token_bytes(16),
        dimension=arguments.dim,
        bits=arguments.bits,
        assumptions=Assumptions(arguments.colluding_fraction, arguments.dropout_fraction),
    )
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    graph = settings.graph(arguments.clients)
    repeats = arguments.repeats or (5 if arguments.clients < 500 else 1)
    dropped = round(arguments.dropout * arguments.clients)
    without = measure(settings, arguments.clients, 0, repeats, arguments.measured, clock)
    with_dropout = measure(settings, arguments.clients, dropped, repeats, arguments.measured, clock)
    cipher = min(without.cipher_seconds_per_mask, with_dropout.cipher_seconds_per_mask)
    result = {
        "clients": arguments.clients,
        "dim": arguments.dim,
        "bits": arguments.bits,
        "degree": graph.degree,
        "threshold": graph.threshold,
        "mask_degree": graph.mask_degree,
        "client_s": round(without.client_seconds, 4),
        "server_s": round(without.server_seconds, 4),
        "server_s_dropout": round(with_dropout.server_seconds, 4),
        "dropped": dropped,
        "bytes_up": without.bytes_up,
        "expansion": round(without.bytes_up / (CLEAR_BYTES * arguments.dim), 4),
        "cipher_client_s": round(cipher * (graph.mask_degree + 1), 4),
        "cipher_server_s": round(cipher * arguments.clients, 4),
        "client_over_cipher": round(without.client_seconds / (cipher * (graph.mask_degree + 1)), 2),
        "server_over_cipher": round(without.server_seconds / (cipher * arguments.clients), 2),
        "encode_s": round(encode_seconds(arguments.dim, repeats, clock), 4),
        "clock": "cpu" if arguments.cpu_time else "wall",
        "measured": min(arguments.measured, arguments.clients - dropped),
        "repeats": repeats,
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:>20}  {value}")


if __name__ == "__main__":
    main()
