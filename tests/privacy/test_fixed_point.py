from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.fixed_point import FixedPoint, check_no_overflow, noise_tail, smallest_ring_bits
from fedtalk.privacy.secagg import AggregationSettings, Ring, run_round


def random_vector(dimension: int, norm: float, seed: int, spiky: bool = False) -> np.ndarray:
    generator = np.random.default_rng(seed)
    vector = generator.standard_normal(dimension) ** (9 if spiky else 1)
    return vector * (norm / np.linalg.norm(vector))


def make(dimension: int, norm_bound: float, clients: int, coordinate_bits: int = 16) -> FixedPoint:
    bits = smallest_ring_bits(clients, 2 ** (coordinate_bits - 1) - 1)
    return FixedPoint(dimension, norm_bound, clients, bits, coordinate_bits)


def exact_squared_norm(fixed_point: FixedPoint, encoded: np.ndarray) -> Fraction:
    """||step * q||**2 without any rounding error."""
    whole = sum(value * value for value in Ring(fixed_point.bits).to_signed(encoded).tolist())
    return whole * Fraction(fixed_point.step) ** 2


@given(
    st.integers(1, 400),
    st.floats(1e-3, 1e3),
    st.integers(8, 24),
    st.floats(0.0, 1.0),
    st.booleans(),
    st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_the_norm_bound_holds_exactly_after_rounding(
    dimension: int, norm_bound: float, coordinate_bits: int, share: float, spiky: bool, seed: int
) -> None:
    try:
        fixed_point = make(dimension, norm_bound, 5, coordinate_bits)
    except ConfigurationError:
        assume(False)
    vector = random_vector(dimension, share * norm_bound, seed, spiky)
    encoded = fixed_point.encode(vector, fixed_point.rotation(seed), np.random.default_rng(seed))
    assert exact_squared_norm(fixed_point, encoded) <= Fraction(norm_bound) ** 2
    assert np.abs(Ring(fixed_point.bits).to_signed(encoded)).max() <= fixed_point.largest


@pytest.mark.parametrize("coordinate_bits", [8, 16, 32])
def test_the_norm_bound_holds_at_the_bound_where_plain_rounding_breaks_it(coordinate_bits: int) -> None:
    """The same vectors, rounded stochastically without scale and redraw, end above the bound about every other time."""
    fixed_point = make(300, 1.0, 5, coordinate_bits)
    broken = 0
    for seed in range(100):
        vector, rotation = random_vector(300, 1.0, seed), fixed_point.rotation(seed)
        generator = np.random.default_rng(seed)
        encoded = fixed_point.encode(vector, rotation, generator)
        assert exact_squared_norm(fixed_point, encoded) <= 1
        plain = np.floor(rotation.forward(vector) / fixed_point.step + generator.random(300))
        broken += sum(int(value) ** 2 for value in plain) * Fraction(fixed_point.step) ** 2 > 1
    assert broken > 20


@given(st.integers(1, 8), st.integers(1, 200), st.integers(0, 2**32), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_sum_of_encoded_vectors_decodes_to_the_sum_within_the_rounding(
    clients: int, dimension: int, seed: int, spiky: bool
) -> None:
    fixed_point = make(dimension, 2.0, clients)
    rotation, ring = fixed_point.rotation(seed), Ring(fixed_point.bits)
    vectors = [random_vector(dimension, 2.0, seed + client, spiky) for client in range(clients)]
    total = np.zeros(dimension, dtype=ring.dtype)
    for client, vector in enumerate(vectors):
        total += fixed_point.encode(vector, rotation, np.random.default_rng([seed, client]))
    decoded = fixed_point.decode(ring.reduce(total), rotation)
    # Each coordinate of each client is off by at most one step; the rotation keeps the length of the error.
    unit = fixed_point.step / fixed_point.kappa
    assert np.linalg.norm(decoded - sum(vectors)) <= clients * math.sqrt(dimension) * unit


def test_rounding_is_unbiased() -> None:
    """Mean of 4000 encodings against the vector, in units of the mean's own deviation; refused beyond p = 1e-9.

    Power: rounding to nearest or towards zero is off by up to 1/2 or 1 step, here tens of deviations of the mean.
    """
    dimension, trials = 24, 4000
    fixed_point = make(dimension, 1.0, 1, coordinate_bits=10)
    rotation, vector = fixed_point.rotation(3), random_vector(dimension, 0.9, seed=3)
    generator = np.random.default_rng(0)
    ring = Ring(fixed_point.bits)
    scaled = rotation.forward(vector) * fixed_point.kappa / fixed_point.step
    fraction = scaled - np.floor(scaled)
    mean = np.mean([ring.to_signed(fixed_point.encode(vector, rotation, generator)) for _ in range(trials)], axis=0)
    deviations = (mean - scaled) / np.sqrt(fraction * (1 - fraction) / trials)
    assert np.abs(deviations).max() < scipy.stats.norm.isf(1e-9 / dimension / 2)
    nearest = (np.round(scaled) - scaled) / np.sqrt(fraction * (1 - fraction) / trials)
    assert np.abs(nearest).max() > 20


def test_the_first_draw_is_nearly_always_kept() -> None:
    """kappa leaves room: at the norm bound, 2000 plain stochastic roundings of the scaled vector stay within it."""
    fixed_point = make(500, 1.0, 1, coordinate_bits=8)
    scaled = fixed_point.rotation(1).forward(random_vector(500, 1.0, seed=1)) * fixed_point.kappa / fixed_point.step
    generator = np.random.default_rng(0)
    bound = (1 / fixed_point.step) ** 2
    norms = [float(np.sum(np.floor(scaled + generator.random(500)) ** 2)) for _ in range(2000)]
    assert max(norms) <= bound and max(norms) > 0.98 * bound
    assert 0.5 < fixed_point.kappa < 1


def test_towards_zero_is_the_last_resort_and_keeps_the_bound(monkeypatch) -> None:
    """Rounding that always goes up in absolute value would break the bound: it is refused each time, then given up."""

    class Outwards:
        """Draws that push every coordinate away from zero."""

        def __init__(self, scaled: np.ndarray) -> None:
            self.scaled, self.calls = scaled, 0

        def random(self, size: int) -> np.ndarray:
            self.calls += 1
            return np.where(self.scaled > 0, 0.0, 1.0)

    fixed_point = make(400, 1.0, 1, coordinate_bits=8)
    rotation, vector = fixed_point.rotation(2), random_vector(400, 1.0, seed=2)
    scaled = rotation.forward(vector) * fixed_point.kappa / fixed_point.step
    draws = Outwards(scaled)
    encoded = fixed_point.encode(vector, rotation, draws)  # type: ignore[arg-type]
    assert draws.calls == 16
    assert Ring(fixed_point.bits).to_signed(encoded).tolist() == np.trunc(scaled).tolist()
    assert exact_squared_norm(fixed_point, encoded) <= 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    fixed_point = make(4, 1.0, 3)
    with pytest.raises(ValueError, match="L2 norm"):
        fixed_point.encode(np.array([0.0, bad, 0.0, 0.0]), fixed_point.rotation(0), np.random.default_rng(0))


def test_a_vector_above_the_norm_bound_or_of_another_length_is_refused() -> None:
    fixed_point = make(4, 1.0, 3)
    rotation, generator = fixed_point.rotation(0), np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"at most 1\.0, got 1\.1"):
        fixed_point.encode(np.array([1.1, 0, 0, 0]), rotation, generator)
    with pytest.raises(ValueError, match="shape"):
        fixed_point.encode(np.zeros(5), rotation, generator)
    with pytest.raises(ValueError, match="shape"):
        fixed_point.decode(np.zeros(5, dtype="<u4"), rotation)
    rounded_up = np.array([1.0 + 5e-7, 0, 0, 0])  # a float32 clip may end a little above
    assert exact_squared_norm(fixed_point, fixed_point.encode(rounded_up, rotation, generator)) <= 1


@given(st.integers(1, 10**6), st.integers(1, 2**40), st.integers(0, 2**40))
def test_the_smallest_ring_holds_the_largest_sum_and_the_next_smaller_does_not(
    clients: int, largest: int, tail: int
) -> None:
    bits = smallest_ring_bits(clients, largest, tail)
    extreme = clients * largest + tail
    assert extreme <= 2 ** (bits - 1) - 1  # the largest signed value
    check_no_overflow(clients, largest, tail, bits)
    assert extreme > 2 ** (bits - 2) - 1
    with pytest.raises(ConfigurationError, match=f"got {clients} \\* {largest} \\+ {tail} = {extreme}"):
        check_no_overflow(clients, largest, tail, bits - 1)


def test_the_worst_sum_that_passes_the_check_does_not_wrap() -> None:
    """All clients at the limit with the same sign, through the ring and back, in the smallest ring; one less wraps."""
    fixed_point = make(3, 1.0, 11, coordinate_bits=12)
    for sign in (1, -1):
        worst = np.full(3, sign * fixed_point.largest)
        for bits, wraps in ((fixed_point.bits, False), (fixed_point.bits - 1, True)):
            ring = Ring(bits)
            total = np.zeros(3, dtype=ring.dtype)
            for _ in range(11):
                total += ring.from_signed(worst)
            assert (ring.to_signed(ring.reduce(total)).tolist() != (11 * worst).tolist()) == wraps


def test_overflow_is_refused_when_the_configuration_is_made() -> None:
    FixedPoint(dimension=1000, norm_bound=1.0, clients=10, bits=20)
    with pytest.raises(ConfigurationError, match=r"17 \* 32767 \+ 0 = 557039 >= 2\*\*19 = 524288.*at least 21 bits"):
        FixedPoint(dimension=1000, norm_bound=1.0, clients=17, bits=20)
    with pytest.raises(ConfigurationError, match="could wrap"):
        FixedPoint(dimension=1000, norm_bound=1.0, clients=10, bits=20, noise_deviation=100.0)


def test_the_noise_tail_is_beyond_what_the_noise_reaches() -> None:
    """A union bound over a normal's exact tail, which is below the sub-Gaussian one; and not wastefully far beyond."""
    for dimension, probability in [(1, 1e-3), (1000, 1e-9), (10**6, 2.0**-40)]:
        tail = noise_tail(50.0, dimension, probability)
        assert 2 * dimension * scipy.stats.norm.sf(tail / 50.0) <= probability
        assert 2 * dimension * scipy.stats.norm.sf(0.8 * tail / 50.0) > probability
    assert noise_tail(0.0, 10) == 0


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"dimension": 0}, "dimension"),
        ({"clients": 0}, "clients"),
        ({"norm_bound": 0.0}, "norm_bound"),
        ({"norm_bound": math.inf}, "norm_bound"),
        ({"norm_bound": math.nan}, "norm_bound"),
        ({"coordinate_bits": 1}, "coordinate_bits"),
        ({"coordinate_bits": 33}, "coordinate_bits"),
        ({"bits": 63}, "bits"),
        ({"noise_deviation": -1.0}, "noise tail"),
        ({"coordinate_bits": 4, "dimension": 10**6}, "rounding noise takes up the norm bound"),
    ],
)
def test_unfit_settings_are_configuration_errors(changes: dict[str, float], match: str) -> None:
    good = {"dimension": 100, "norm_bound": 1.0, "clients": 5, "bits": 24, "coordinate_bits": 16}
    with pytest.raises(ConfigurationError, match=match):
        FixedPoint(**{**good, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [(0, 5, 0), (5, 0, 0), (5, 5, -1)])
def test_an_overflow_check_of_nothing_is_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigurationError, match="overflow check"):
        smallest_ring_bits(*arguments)


def test_weighted_vectors_through_the_whole_protocol() -> None:
    """What a run does: weight, encode, sum securely with a dropout, decode."""
    dimension, clients = 300, 6
    fixed_point = FixedPoint(dimension, norm_bound=1.5, clients=clients, bits=20)
    settings_ = AggregationSettings(b"s" * 16, dimension, 20)
    rotation = fixed_point.rotation(seed=9)
    weights = np.linspace(0.2, 1.0, clients)
    vectors = [weight * random_vector(dimension, 1.5, client) for client, weight in enumerate(weights)]
    inputs = {
        client: fixed_point.encode(vector, rotation, np.random.default_rng(client))
        for client, vector in enumerate(vectors)
    }
    lost = 4

    def lose(stage: int, client: int, data: bytes) -> bytes | None:
        return None if (stage, client) == (2, lost) else data

    report = run_round(inputs, settings_, transport=lose)
    expected = sum(vector for client, vector in enumerate(vectors) if client != lost)
    error = np.linalg.norm(fixed_point.decode(report.total, rotation) - expected)
    assert error <= 5 * math.sqrt(dimension) * fixed_point.step / fixed_point.kappa
