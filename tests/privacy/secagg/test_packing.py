from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtalk.privacy.secagg.packing import PackedSum, pack, packed_bytes, unpack
from fedtalk.privacy.secagg.ring import Ring


def random_vector(dimension: int, bits: int, seed: int) -> np.ndarray:
    ring = Ring(bits)
    return np.random.default_rng(seed).integers(0, ring.modulus, dimension, dtype=np.uint64).astype(ring.dtype)


@pytest.mark.parametrize("bits", range(2, 63))
@pytest.mark.parametrize("dimension", [1, 31, 64, 1000])
def test_unpacking_gives_back_what_was_packed_in_the_true_width(bits: int, dimension: int) -> None:
    vector = random_vector(dimension, bits, seed=bits)
    packed = pack(vector, bits)
    assert np.array_equal(unpack(packed, dimension, bits), vector)
    group = (Ring(bits).word_bits // np.gcd(bits, Ring(bits).word_bits)) * bits / 8
    assert len(packed) == packed_bytes(dimension, bits) < dimension * bits / 8 + group


@given(st.integers(2, 62), st.integers(1, 100), st.integers(1, 9), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_adding_packed_vectors_is_adding_their_integers(bits: int, dimension: int, count: int, seed: int) -> None:
    vectors = [random_vector(dimension, bits, seed + index) for index in range(count)]
    ring = Ring(bits)
    total = PackedSum(dimension, bits)
    for vector in vectors:
        total.add(pack(vector, bits))
    expected = [sum(column) % ring.modulus for column in zip(*(vector.tolist() for vector in vectors), strict=True)]
    assert ring.reduce(total.total()).tolist() == expected


def test_the_wire_format_is_the_one_described() -> None:
    """Independent oracle: bits written one by one as strings."""
    dimension, bits = 11, 20
    vector = random_vector(dimension, bits, seed=0)
    length = 2  # 32 / gcd(20, 32) = 8 segments of ceil(11 / 8) coordinates, in 5 words
    padded = [*vector.tolist(), *[0] * (8 * length - dimension)]
    words = [[0] * length for _ in range(5)]
    for group in range(length):
        stream = "".join(format(padded[segment * length + group], "020b")[::-1] for segment in range(8))
        for word in range(5):
            words[word][group] = int(stream[32 * word : 32 * word + 32][::-1], 2)
    assert pack(vector, bits) == b"".join(value.to_bytes(4, "little") for row in words for value in row)


@pytest.mark.parametrize("bits", [11, 20, 37])
def test_sums_of_vectors_longer_than_a_block_are_exact(bits: int) -> None:
    ring, dimension = Ring(bits), 64 * 33_000
    vectors = [random_vector(dimension, bits, seed) for seed in range(3)]
    total = PackedSum(dimension, bits)
    for vector in vectors:
        total.add(memoryview(pack(vector, bits)))
    assert np.array_equal(ring.reduce(total.total()), ring.reduce(sum(vectors[1:], vectors[0])))
