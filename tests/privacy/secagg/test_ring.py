from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.secagg import Ring


@given(st.integers(2, 62), st.data())
def test_sums_in_the_word_are_sums_of_the_integers_modulo_the_ring(bits: int, data: st.DataObject) -> None:
    ring, half = Ring(bits), 1 << (bits - 1)
    values = data.draw(st.lists(st.integers(-half, half - 1), min_size=1, max_size=40))
    total = np.zeros(1, dtype=ring.dtype)
    for value in values:
        total += ring.from_signed(np.array([value]))
    expected = (sum(values) + half) % (2 * half) - half
    assert ring.to_signed(ring.reduce(total)).tolist() == [expected]


@pytest.mark.parametrize("bits", [2, 16, 17, 32, 33, 62])
def test_the_word_has_room_and_membership_ends_at_the_modulus(bits: int) -> None:
    ring = Ring(bits)
    assert bits <= ring.word_bits == 8 * ring.dtype.itemsize
    assert ring.contains(np.array([0, ring.modulus - 1], dtype=ring.dtype))
    if bits < ring.word_bits:
        assert not ring.contains(np.array([ring.modulus], dtype=ring.dtype))


@pytest.mark.parametrize("bits", [-1, 0, 1, 63, 64])
def test_a_width_out_of_range_is_a_configuration_error(bits: int) -> None:
    with pytest.raises(ConfigurationError, match=f"got {bits}"):
        Ring(bits)
