from __future__ import annotations

import itertools
import random
import secrets

import pytest

from fedtalk.privacy.secagg.shamir import PRIME, SHARE_BYTES, combine, split


def is_probable_prime(number: int, rounds: int = 40) -> bool:
    """Miller and Rabin; a composite passes with probability below 4**-rounds."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(rounds):
        power = pow(random.randrange(2, number - 1), odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def test_the_modulus_is_the_smallest_prime_that_holds_every_secret() -> None:
    assert is_probable_prime(PRIME)
    assert not any(is_probable_prime(number, rounds=5) for number in range(2**256, PRIME))


@pytest.mark.parametrize(("holders", "threshold"), [(1, 1), (4, 1), (5, 3), (6, 6), (7, 4)])
def test_every_set_of_threshold_holders_and_no_smaller_one_finds_the_secret(holders: int, threshold: int) -> None:
    for secret in (secrets.token_bytes(32), bytes(32), b"\xff" * 32):
        shares = split(secret, [3 * holder + 1 for holder in range(holders)], threshold)
        assert all(len(share) == SHARE_BYTES for share in shares.values())
        for chosen in itertools.combinations(shares, threshold):
            assert combine({point: shares[point] for point in chosen}) == secret
        for chosen in itertools.combinations(shares, threshold - 1):
            if chosen:
                assert combine({point: shares[point] for point in chosen}) != secret


@pytest.mark.parametrize("largest", [3, 61, 1000, 5000])
def test_secrets_are_found_at_points_of_every_size(largest: int) -> None:
    points = sorted({1, 2, *(largest - step for step in range(min(largest, 40)))})
    shares = split(b"s" * 32, points, threshold=len(points))
    assert combine(shares) == b"s" * 32


def test_fewer_shares_than_the_threshold_fit_every_secret() -> None:
    """Perfect secrecy, by its definition: for any other secret there is a last share that completes the known ones."""
    shares = split(b"s" * 32, [1, 2, 3], threshold=3)
    known = {point: int.from_bytes(shares[point], "big") for point in (1, 2)}
    for other in (0, 1, 2**255):
        # f(0) = 3 f(1) - 3 f(2) + f(3) for a parabola
        last = (other - 3 * known[1] + 3 * known[2]) % PRIME
        completed = {1: shares[1], 2: shares[2], 3: last.to_bytes(SHARE_BYTES, "big")}
        assert combine(completed) == other.to_bytes(32, "big")


def test_two_sharings_of_one_secret_have_nothing_in_common() -> None:
    first, second = (split(b"s" * 32, [1, 2, 3], threshold=2) for _ in range(2))
    assert not set(first.values()) & set(second.values())


def test_shares_of_different_sharings_do_not_combine() -> None:
    first, second = (split(b"s" * 32, [1, 2], threshold=2) for _ in range(2))
    assert combine({1: first[1], 2: second[2]}) != b"s" * 32


@pytest.mark.parametrize("points", [[], [0, 1], [1, 1], [2**20 + 1], [PRIME], [-1, 2]])
def test_points_out_of_range_are_refused(points: list[int]) -> None:
    with pytest.raises(ValueError, match="points"):
        split(bytes(32), points, 1)


def test_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="threshold"):
        split(bytes(32), [1, 2], 3)
    with pytest.raises(ValueError, match="threshold"):
        split(bytes(32), [1, 2], 0)
    with pytest.raises(ValueError, match="32 bytes"):
        split(bytes(31), [1, 2], 1)
    with pytest.raises(ValueError, match="field element"):
        combine({1: PRIME.to_bytes(SHARE_BYTES, "big")})
