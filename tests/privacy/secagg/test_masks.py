from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedtalk.privacy.secagg import masks as module
from fedtalk.privacy.secagg.masks import BLOCK_BYTES, LEAST_BYTES_A_THREAD, Mask, apply_masks

KEYS = [bytes([index]) * 32 for index in range(70)]


def keystream(key: bytes, count: int, dtype: str) -> list[int]:
    """Independent oracle: the counter's blocks one by one, by AES in codebook mode."""
    encryptor = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    size = np.dtype(dtype).itemsize
    blocks = b"".join(encryptor.update(block.to_bytes(16, "big")) for block in range(-(-count * size // 16)))
    return [int.from_bytes(blocks[size * index : size * (index + 1)], "little") for index in range(count)]


@pytest.mark.parametrize("dtype", ["<u2", "<u4", "<u8"])
def test_a_mask_is_the_counter_modes_keystream(dtype: str) -> None:
    size = np.dtype(dtype).itemsize
    dimension = 2 * BLOCK_BYTES // size + 5  # across blocks, and no multiple of the cipher's
    vector = np.zeros(dimension, dtype=dtype)
    apply_masks(vector, [Mask(KEYS[1])], 1)
    assert vector.tolist() == keystream(KEYS[1], dimension, dtype)


def test_masks_add_up_and_cancel_exactly() -> None:
    original = np.arange(1000, dtype="<u4")
    vector = original.copy()
    apply_masks(vector, [Mask(key) for key in KEYS], 70)
    expected = [sum(column) % 2**32 for column in zip(*(keystream(key, 1000, "<u4") for key in KEYS), strict=True)]
    assert (vector - original).tolist() == expected
    apply_masks(vector, [Mask(key, subtract=True) for key in reversed(KEYS)], 70)
    assert np.array_equal(vector, original)


def test_no_masks_change_nothing() -> None:
    vector = np.arange(10, dtype="<u4")
    apply_masks(vector, [], 0)
    assert vector.tolist() == list(range(10))


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_change_no_bit(threads: int) -> None:
    original = np.arange(3 * BLOCK_BYTES // 4 + 1, dtype="<u4")
    masks = [Mask(key, subtract=index % 3 == 0) for index, key in enumerate(KEYS[:7])]
    alone, shared = original.copy(), original.copy()
    apply_masks(alone, masks, 7, threads=1)
    apply_masks(shared, iter(masks), 7, threads=threads)
    assert not np.array_equal(alone, original)
    assert np.array_equal(alone, shared)


def test_much_keystream_is_drawn_in_threads_and_little_of_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    alone = module._add_streams

    def watched(accumulator: np.ndarray, take: Callable[[], list[Mask]]) -> None:
        names.add(threading.current_thread().name)
        alone(accumulator, take)

    monkeypatch.setattr(module, "_add_streams", watched)
    monkeypatch.setattr(module, "usable_cores", lambda: 3)
    apply_masks(np.zeros(1000, dtype="<u4"), [Mask(key) for key in KEYS], 70)
    assert names == {"MainThread"}
    apply_masks(
        np.zeros(3 * LEAST_BYTES_A_THREAD // 4 // len(KEYS) + 100, dtype="<u4"), [Mask(key) for key in KEYS], 70
    )
    assert len(names) == 3


@pytest.mark.parametrize("threads", [1, 2])
def test_masks_that_cannot_be_opened_end_it_in_whichever_thread(threads: int) -> None:
    def opened() -> Iterator[Mask]:
        yield from map(Mask, KEYS[:5])
        raise ValueError("the shares don't fit")

    with pytest.raises(ValueError, match="don't fit"):
        apply_masks(np.zeros(1000, dtype="<u8"), opened(), 70, threads=threads)
