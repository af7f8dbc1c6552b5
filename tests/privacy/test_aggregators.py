"""Each aggregator alone, around the plainest inner one, and all of them together."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtalk.federation.cohort import PoissonCohort
from fedtalk.privacy.aggregators import Aggregator, Clipped, Discretised, Masked, Noised, PlainSum
from fedtalk.privacy.discrete_gaussian import insecure_entropy
from fedtalk.privacy.fixed_point import FixedPoint
from fedtalk.privacy.mechanism import UNITS_BOUND, Mechanism, Noise
from fedtalk.privacy.private_rounds import PrivateRounds
from fedtalk.privacy.sealed_rounds import AggregationTask
from fedtalk.privacy.sealing import PairwiseSealing
from fedtalk.privacy.secagg import AggregationSettings, Assumptions
from fedtalk.privacy.secagg.ring import Ring
from fedtalk.privacy.settings import Privacy

CLIENTS = [f"c{number}" for number in range(8)]


class Remember(Aggregator):
    """The real sum, for aggregators that are tried alone."""

    def __init__(self) -> None:
        self.seen: dict[str, np.ndarray] = {}

    def to_sum(self, client: str, vector: np.ndarray, cohort_size: int) -> np.ndarray:
        self.seen[client] = vector
        return vector

    def from_sum(self, total: np.ndarray, cohort_size: int, survivors: int) -> np.ndarray:
        return total


def _mechanism(dimension: int, noise: Noise | None) -> Mechanism:
    protocol = AggregationSettings(bytes(16), dimension, 40, Assumptions(0.0, 0.25))
    return Mechanism(dimension, UNITS_BOUND, 3, len(CLIENTS), protocol, noise)


def test_a_plain_sum_is_the_sum_modulo_the_ring() -> None:
    plain, elements = PlainSum(Ring(12)), np.arange(6, dtype="<u2") * 800
    assert plain.to_sum("c0", elements, 8) is elements
    total = elements.astype(np.uint64) * 3 + 4096 * 7
    assert plain.from_sum(total, 8, 3).tolist() == [(800 * i * 3) % 4096 for i in range(6)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), st.floats(-1, 5), st.floats(1e-3, 1e3),
    st.sampled_from([0.0, 0.7]),
)  # fmt: skip
def test_what_is_clipped_is_bounded_and_comes_back_in_its_own_units(
    update: list[float], weight: float, bound: float, count_scale: float
) -> None:
    inner = Remember()
    clipped = Clipped(inner, bound, count_scale)
    vector = clipped.to_sum("c0", np.append(np.array(update), weight), 8)
    assert np.linalg.norm(inner.seen["c0"]) <= math.hypot(UNITS_BOUND, count_scale / 2) * (1 + 1e-12)
    back, used = clipped.from_sum(vector, 8, 1), min(1.0, max(0.0, weight))
    shrunk = min(1.0, bound / max(np.linalg.norm(update), 1e-300))
    np.testing.assert_allclose(back[: len(update)], used * shrunk * np.array(update), rtol=1e-9, atol=1e-9)
    assert back[len(update)] == used and len(back) == len(update) + 1 + bool(count_scale)


def test_what_is_discretised_keeps_its_norm_and_comes_back_within_a_step() -> None:
    inner, point = Remember(), FixedPoint(20, 1.0, len(CLIENTS), 24)
    discretised = Discretised(inner, point, point.rotation(3), lambda client: np.random.default_rng(len(client)))
    generator = np.random.default_rng(0)
    vectors = {name: generator.normal(size=20) for name in CLIENTS}
    vectors = {name: vector / np.linalg.norm(vector) for name, vector in vectors.items()}
    total = sum(discretised.to_sum(name, vector, 8).astype(np.int64) for name, vector in vectors.items())
    for elements in inner.seen.values():
        assert np.linalg.norm(Ring(24).to_signed(elements)) * point.step <= 1.0
    got = discretised.from_sum(Ring(24).reduce(np.asarray(total).astype("<u4")), 8, 8)
    np.testing.assert_allclose(got, sum(vectors.values()), atol=8 * point.step * math.sqrt(20))
    with pytest.raises(ValueError, match="clip it first"):
        discretised.to_sum("c0", 1.01 * vectors["c0"], 8)


@pytest.mark.parametrize("distributed", [True, False])
def test_noise_alone_has_the_accounted_variance_for_every_number_of_survivors(distributed: bool) -> None:
    """From sums of zeros: the constant variance, of which clients bring their shares or nothing."""
    mechanism = _mechanism(20_000, Noise(1.0, distributed))
    ring, zeros = mechanism.fixed_point.ring, np.zeros(20_000, mechanism.fixed_point.ring.dtype)
    for survivors in (6, 8):
        noised = Noised(PlainSum(ring), mechanism, lambda whose, n=survivors: insecure_entropy(1, n, whose))
        elements = [noised.to_sum(name, zeros, 8) for name in CLIENTS[:survivors]]
        assert any(element.any() for element in elements) == distributed
        total = ring.reduce(np.sum(elements, axis=0, dtype=np.uint64).astype(ring.dtype))
        measured = float(np.mean(ring.to_signed(noised.from_sum(total, 8, survivors)).astype(float) ** 2))
        assert measured == pytest.approx(mechanism.released_variance, rel=5 * (2 / 20_000) ** 0.5)
        assert mechanism.released_variance >= mechanism.accounted_variance


def test_without_noise_in_the_mechanism_nothing_is_added() -> None:
    mechanism = _mechanism(5, None)
    noised = Noised(PlainSum(mechanism.fixed_point.ring), mechanism, lambda whose: pytest.fail("asked for noise"))
    elements = np.arange(5, dtype=mechanism.fixed_point.ring.dtype)
    assert noised.to_sum("c0", elements, 8).tolist() == noised.from_sum(elements, 8, 8).tolist() == [0, 1, 2, 3, 4]


def test_all_of_them_together_are_the_rounds_of_a_run(tmp_path: Path) -> None:
    """Clip -> discretise -> noise -> mask -> sum by hand gives the bits of `PrivateRounds` with the same seeds."""
    privacy = Privacy(
        clip_norm=0.5, noise_multiplier=1.0, delta=1e-2, accountant="rdp", assumptions=Assumptions(0.0, 0.25),
        insecure_noise_seed=4,
    )  # fmt: skip
    rounds = PrivateRounds(privacy, AggregationTask(6, ["lora_B"], CLIENTS, PoissonCohort(1.0), 2, 3, 0, tmp_path))
    sealing = rounds.open_round(1, CLIENTS, CLIENTS)
    updates = {name: np.linspace(-1, 1, 6) * (number + 1) for number, name in enumerate(CLIENTS)}
    expected = sealing.open_sum([sealing.seal(name, rounds.vector(update, 0.7)) for name, update in updates.items()])

    clipped = Clipped(rounds._bounded_sum(1), 0.5)
    masked = Masked(clipped, PairwiseSealing(1, CLIENTS), len(CLIENTS))
    total = masked.open_sum([masked.seal(name, np.append(update, 0.7)) for name, update in updates.items()])
    assert np.array_equal(total, np.append(expected[:6] * 0.5, expected[6:]))
    assert np.abs(total).max() > 0.1
