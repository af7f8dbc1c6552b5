from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtalk.privacy.secagg import packing as module
from fedtalk.privacy.secagg.packing import AT_ONCE, PackedSum, pack, packed_bytes, unpack

WIDTHS = range(33, 65)
"""Of 64 // bits coordinates, for all widths of the ring."""


def random_values(count: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**width, count, dtype=np.uint64)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [1, 31, 64, 1000])
def test_unpacking_gives_back_what_was_packed_in_the_true_width(width: int, count: int) -> None:
    values = random_values(count, width, seed=width)
    packed = pack(values, width)
    assert np.array_equal(unpack(packed, count, width), values)
    group = 64 // math.gcd(width, 64) * width / 8
    assert len(packed) == packed_bytes(count, width) < count * width / 8 + group


@given(st.integers(33, 64), st.integers(1, 100), st.integers(1, 9), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_adding_packed_values_is_adding_their_integers(width: int, count: int, summands: int, seed: int) -> None:
    rows = [random_values(count, width, seed + index) for index in range(summands)]
    total = PackedSum(count, width)
    for row in rows:
        total.add(pack(row, width))
    expected = [sum(column) % 2**width for column in zip(*(row.tolist() for row in rows), strict=True)]
    assert [value % 2**width for value in total.total().tolist()] == expected


def test_the_wire_format_is_the_one_described() -> None:
    """Independent oracle: bits written one by one as strings."""
    count, width = 23, 60
    values = random_values(count, width, seed=0)
    length = 2  # 64 / gcd(60, 64) = 16 segments of ceil(23 / 16) values, in 15 words
    padded = [*values.tolist(), *[0] * (16 * length - count)]
    words = [[0] * length for _ in range(15)]
    for group in range(length):
        stream = "".join(format(padded[segment * length + group], "060b")[::-1] for segment in range(16))
        for word in range(15):
            words[word][group] = int(stream[64 * word : 64 * word + 64][::-1], 2)
    assert pack(values, width) == b"".join(value.to_bytes(8, "little") for row in words for value in row)


@pytest.mark.parametrize("width", [55, 60, 64])
def test_sums_longer_than_a_block_are_exact(width: int) -> None:
    count = 64 * 33_000
    rows = [random_values(count, width, seed) for seed in range(3)]
    total = PackedSum(count, width)
    for row in rows:
        total.add(memoryview(pack(row, width)))
    assert not np.any((total.total() - rows[0] - rows[1] - rows[2]) << np.uint64(64 - width))


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_threads_and_what_is_added_together_change_no_bit(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: cores)
    monkeypatch.setattr(module, "_LEAST_BYTES_A_THREAD", 1)
    count, width = 1001, 60
    rows = [random_values(count, width, seed) for seed in range(2 * AT_ONCE + 3)]
    total, expected = PackedSum(count, width), np.zeros(count, np.uint64)
    for row in rows:
        total.add(pack(row, width))
        expected += row
    assert not np.any((total.total() - expected) << np.uint64(4))
