"""Streams: a function of seed and purpose alone, and unrelated to each other."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedtalk.randomness import derive_seed, numpy_generator, torch_generator

PART = st.one_of(st.integers(-10, 10_000), st.text(max_size=6))
PURPOSE = st.lists(PART, max_size=4).map(tuple)


def _kinds(parts: tuple) -> list[tuple[str, object]]:
    return [(type(part).__name__, part) for part in parts]


@given(st.integers(0, 2**40), PURPOSE, PURPOSE)
def test_seeds_fit_and_are_those_of_their_purpose(seed: int, one: tuple, other: tuple) -> None:
    assert 0 <= derive_seed(seed, *one) < 2**63
    assert derive_seed(seed, *one) == derive_seed(seed, *one)
    separated = not any("\x1f" in str(part) for part in (*one, *other))  # the separator is no text of ours
    if separated and _kinds(one) != _kinds(other):
        assert derive_seed(seed, *one) != derive_seed(seed, *other)


def test_the_derivation_is_fixed() -> None:
    """Another one would give other bits to every run that has ever been recorded."""
    text = "7\x1fstr:cohort\x1fint:3"
    assert derive_seed(7, "cohort", 3) == int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def test_neighbouring_seeds_rounds_and_clients_are_unrelated() -> None:
    purposes = [(s, "x", r, c) for s in range(4) for r in range(4) for c in ("anna", "bert")]
    draws = np.array([numpy_generator(*p).standard_normal(2000) for p in purposes])
    correlation = np.corrcoef(draws)[np.triu_indices(len(purposes), 1)]
    assert np.abs(correlation).max() < 5.5 / np.sqrt(2000)
    tensors = [torch.randn(2000, generator=torch_generator(*p)) for p in purposes]
    worst = max(abs(float(torch.corrcoef(torch.stack(pair))[0, 1])) for pair in itertools.combinations(tensors, 2))
    assert worst < 5.5 / np.sqrt(2000)


def test_kinds_of_parts_and_their_order_count() -> None:
    assert derive_seed(0, 1) != derive_seed(0, "1")
    assert derive_seed(0, "a", "b") != derive_seed(0, "ab") != derive_seed(0, "b", "a")
    assert derive_seed(0, 1, 2) != derive_seed(0, 2, 1)


def test_the_global_generators_are_left_alone() -> None:
    np.random.seed(0)
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state().clone()  # type: ignore[index]
    numpy_generator(1, "x").random()
    torch.rand(1, generator=torch_generator(1, "x"))
    assert np.array_equal(before[0], np.random.get_state()[1])  # type: ignore[index]
    assert torch.equal(before[1], torch.get_rng_state())
