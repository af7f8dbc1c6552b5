from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtalk.privacy.secagg.rotation import Rotation, largest_coordinate, walsh_hadamard


@pytest.mark.parametrize("bits", range(12))
def test_the_transform_is_the_hadamard_matrix(bits: int) -> None:
    size = 1 << bits
    vector = np.random.default_rng(bits).standard_normal(size)
    expected = scipy.linalg.hadamard(size) @ vector / np.sqrt(size)
    assert np.allclose(walsh_hadamard(vector), expected, rtol=0, atol=1e-12 * size)


@pytest.mark.parametrize("shape", [(3,), (0,), (2, 2)])
def test_other_lengths_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="2\\*\\*k"):
        walsh_hadamard(np.zeros(shape))


@given(st.integers(1, 300), st.integers(0, 2**62))
@settings(max_examples=60, deadline=None)
def test_a_rotation_keeps_length_and_products_and_turns_back(dimension: int, seed: int) -> None:
    rotation = Rotation(dimension, seed)
    first, second = np.random.default_rng(0).standard_normal((2, dimension))
    assert len(rotation.forward(first)) == dimension
    assert rotation.forward(first) @ rotation.forward(second) == pytest.approx(first @ second, abs=1e-10)
    assert np.allclose(rotation.inverse(rotation.forward(first)), first, rtol=0, atol=1e-12)
    assert np.allclose(rotation.forward(rotation.inverse(first)), first, rtol=0, atol=1e-12)


def test_both_sides_draw_the_same_rotation_and_each_round_another() -> None:
    vector = np.arange(100.0)
    assert np.array_equal(Rotation(100, 1).forward(vector), Rotation(100, 1).forward(vector))
    assert not np.allclose(Rotation(100, 1).forward(vector), Rotation(100, 2).forward(vector))


@pytest.mark.parametrize("dimension", [1024, 1025, 1500, 2047])
def test_a_single_spike_is_spread_over_all_coordinates_within_the_bound(dimension: int) -> None:
    """The worst vector for rounding, wherever its energy lies, in lengths that are no power of two."""
    bound = largest_coordinate(dimension, 1.0, probability=1e-6)
    assert bound < 0.25
    for place in (0, dimension // 2, dimension - 1):
        for seed in range(20):
            spike = np.zeros(dimension)
            spike[place] = 1.0
            assert np.abs(Rotation(dimension, seed).forward(spike)).max() <= bound


def test_the_bound_is_met_as_often_as_it_says_and_no_more() -> None:
    """At a probability that can be seen: never above it, and not so loose that it never happens."""
    dimension, trials, probability = 96, 3000, 0.5
    bound = largest_coordinate(dimension, 1.0, probability)
    vector = np.random.default_rng(0).standard_normal(dimension)
    vector /= np.linalg.norm(vector)
    exceeded = sum(np.abs(Rotation(dimension, seed).forward(vector)).max() > bound for seed in range(trials))
    assert 0 < exceeded <= trials * probability


def test_the_bound_is_never_above_the_norm() -> None:
    assert largest_coordinate(3, 2.5, 1e-9) == 2.5
