from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
