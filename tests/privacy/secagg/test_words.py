from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtalk.privacy.fixed_point import smallest_ring_bits
from fedtalk.privacy.secagg.ring import Ring
from fedtalk.privacy.secagg.words import Words


@given(st.integers(2, 62), st.integers(1, 30), st.data())
def test_sums_of_words_are_sums_of_the_numbers_to_the_ends_of_the_range(
    bits: int, dimension: int, data: st.DataObject
) -> None:
    """Whatever is added on the way and taken out again, as masks are."""
    ring, words, half = Ring(bits), Words(dimension, bits), 1 << (bits - 1)
    sums = np.array(data.draw(st.lists(st.integers(-half, half - 1), min_size=dimension, max_size=dimension)))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    total, left = generator.integers(0, 2**64, words.count, dtype=np.uint64), sums.copy()
    mask = total.copy()
    for _ in range(data.draw(st.integers(0, 4))):
        part = generator.integers(-half, half, dimension)
        fits = (left - part >= -half) & (left - part < half)
        left -= np.where(fits, part, 0)
        total += words.join(ring.from_signed(np.where(fits, part, 0)))
    total += words.join(ring.from_signed(left))
    assert ring.to_signed(words.split(total - mask)).tolist() == sums.tolist()


@pytest.mark.parametrize(("bits", "fields"), [(2, 32), (16, 4), (20, 3), (21, 3), (22, 2), (32, 2), (33, 1), (62, 1)])
def test_as_many_coordinates_share_a_word_as_fit(bits: int, fields: int) -> None:
    words = Words(1000, bits)
    assert (words.fields, words.width, words.count) == (fields, fields * bits, -(-1000 // fields))


def test_the_layout_is_the_one_described() -> None:
    """By Python's integers."""
    numbers = [5, -7, 300, -(2**19), 2**19 - 1, 0, -1]
    words = Words(7, 20)
    joined = words.join(Ring(20).from_signed(np.array(numbers))).tolist()
    groups = [(5, -(2**19), -1), (-7, 2**19 - 1, 0), (300, 0, 0)]
    assert [word % 2**60 for word in joined] == [(a + b * 2**20 + c * 2**40) % 2**60 for a, b, c in groups]


def test_a_sum_out_of_range_wraps_and_shifts_the_next_coordinate_by_one() -> None:
    words, ring = Words(3, 20), Ring(20)
    large = words.join(ring.from_signed(np.array([2**19 - 1, 10, 20])))
    assert ring.to_signed(words.split(large + large)).tolist() == [-2, 21, 40]


@pytest.mark.parametrize("clients", [1, 2, 16, 17, 1000, 1023, 1024, 5000])
@pytest.mark.parametrize("tail", [0, 12_345])
def test_the_narrowest_ring_holds_the_largest_sums_there_can_be_and_a_narrower_one_does_not(
    clients: int, tail: int
) -> None:
    """All clients at the limit of a coordinate, the noise's tail on top, of one sign in a field and of the other beside it."""
    largest = 2**15 - 1
    bits, reach = smallest_ring_bits(clients, largest, tail), clients * largest + tail
    signs = np.array([1, -1, -1, 1, 1, 1, -1])
    for width, fits in ((bits, True), (bits - 1, False)):
        ring, words = Ring(width), Words(7, width)
        total = np.zeros(words.count, np.uint64)
        for _ in range(clients):
            total += words.join(ring.from_signed(signs * largest))
        total += words.join(ring.from_signed(signs * tail))
        assert (ring.to_signed(words.split(total)).tolist() == (signs * reach).tolist()) == fits


@given(st.integers(2, 62), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6), st.data())
def test_whatever_a_client_sends_counts_as_some_vector_of_the_ring(
    bits: int, sent: list[int], data: st.DataObject
) -> None:
    """Words beyond all bounds do what the vector that they stand for would do, and no more."""
    ring, dimension = Ring(bits), len(sent) * Words(1, bits).fields
    words = Words(dimension, bits)
    forged = np.array(sent, np.uint64)
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    honest = words.join(ring.from_signed(generator.integers(-(1 << (bits - 1)), 1 << (bits - 1), dimension)))
    stands_for = words.join(words.split(forged))
    assert words.split(honest + forged).tolist() == words.split(honest + stands_for).tolist()
