"""The sampler against the exact probabilities, and against its own sources of error: bias, reuse, floating point."""

from __future__ import annotations

import ast
import inspect
import math

import numpy as np
import pytest
from scipy.stats import chi2, kstest, norm

from fedtalk.errors import ConfigurationError
from fedtalk.privacy import discrete_gaussian as module
from fedtalk.privacy.discrete_gaussian import discrete_gaussian, insecure_entropy, operating_system, uniform_below

COUNT = 60_000


def _exact(deviation: int) -> tuple[np.ndarray, np.ndarray]:
    values = np.arange(-14 * deviation, 14 * deviation + 1)
    weights = np.exp(-(values.astype(float) ** 2) / (2 * deviation**2))
    return values, weights / weights.sum()


def _statistic(samples: np.ndarray, deviation: int) -> tuple[float, int]:
    """Chi-square of the samples against the exact probabilities, cells below 10 expected joined with the tails."""
    values, probabilities = _exact(deviation)
    expected = len(samples) * probabilities
    counts = np.array([(samples == value).sum() for value in values], float)
    large = expected >= 10
    observed = np.append(counts[large], len(samples) - counts[large].sum())
    wanted = np.append(expected[large], len(samples) - expected[large].sum())
    return float(((observed - wanted) ** 2 / wanted).sum()), len(wanted) - 1


@pytest.mark.parametrize("deviation", [1, 2, 3, 7, 12])
def test_samples_have_the_exact_probabilities(deviation: int) -> None:
    """Chi-square, false alarm 1e-6. It finds a rounded continuous Gaussian of the same deviation where that differs."""
    samples = discrete_gaussian(deviation, COUNT, insecure_entropy(deviation))
    statistic, freedom = _statistic(samples, deviation)
    assert statistic < chi2.ppf(1 - 1e-6, freedom)


def test_the_chi_square_would_find_neighbouring_distributions() -> None:
    """Power: 3 % of deviation too little, or a doubled zero (the paper's reason for refusing minus zero), are noticed."""
    generator = np.random.default_rng(0)
    values, probabilities = _exact(7)
    limit = chi2.ppf(1 - 1e-6, 60)
    narrow = np.exp(-(values.astype(float) ** 2) / (2 * 6.79**2))
    doubled = np.where(values == 0, 2, 1) * probabilities
    for wrong in (narrow, doubled):
        samples = generator.choice(values, COUNT, p=wrong / wrong.sum())
        assert _statistic(samples, 7)[0] > limit


@pytest.mark.parametrize("deviation", [1000, 98_404, 2**40, 2**48])
def test_large_deviations_are_gaussian_to_the_eye_of_a_ks_test(deviation: int) -> None:
    samples = discrete_gaussian(deviation, COUNT, insecure_entropy(1, deviation)) / deviation
    assert kstest(samples, norm.cdf).pvalue > 1e-6
    assert np.mean(samples**2) == pytest.approx(1, abs=6 * math.sqrt(2 / COUNT))
    assert np.abs(samples).max() > 3.5  # tails are there


def test_uniform_integers_are_unbiased_where_a_modulus_would_not_be() -> None:
    """Below 3 * 2**62 a bare modulus would give the first third twice as often as the rest."""
    bound = 3 * 2**62
    drawn = uniform_below(bound, 9000, insecure_entropy(0))
    counts = [int((drawn // np.uint64(2**62) == third).sum()) for third in range(3)]
    assert sum(counts) == 9000 and all(abs(count - 3000) < 6 * math.sqrt(2000) for count in counts)
    small = np.bincount(uniform_below(6, 6000, insecure_entropy(1)).astype(int), minlength=6)
    assert len(small) == 6 and np.abs(small - 1000).max() < 6 * math.sqrt(1000 * 5 / 6)


def test_noise_comes_from_the_operating_system_and_is_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(module.secrets, "token_bytes", lambda size: drawn.append(size) or bytes(size))
    np.random.seed(0)
    first = discrete_gaussian(1000, 64)
    np.random.seed(0)
    assert not np.array_equal(first, discrete_gaussian(1000, 64))
    assert operating_system.__module__ == "secrets" and not drawn  # bound once, beyond the reach of a patch
    source = inspect.getsource(module)
    assert "np.random" not in source and "import random" not in source and "torch" not in source


def test_no_floating_point_number_is_on_the_way() -> None:
    tree = ast.parse(inspect.getsource(module))
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert not [value for value in constants if isinstance(value, float)]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)]
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not names & {"exp", "sqrt", "log", "float64", "random"}


def test_a_seed_repeats_and_its_purposes_are_apart() -> None:
    def draw(*purpose: int | str) -> list[int]:
        return discrete_gaussian(50, 32, insecure_entropy(*purpose)).tolist()

    assert draw(1, 0, "anna") == draw(1, 0, "anna")
    assert (
        len({tuple(draw(*purpose)) for purpose in [(1, 0, "anna"), (1, 1, "anna"), (1, 0, "bert"), (2, 0, "anna")]})
        == 4
    )


def test_nothing_drawn_is_nothing() -> None:
    assert discrete_gaussian(5, 0).shape == (0,)


@pytest.mark.parametrize("deviation", [0, -1, 2**48 + 1])
def test_impossible_deviations_are_refused(deviation: int) -> None:
    with pytest.raises(ConfigurationError, match=r"noise deviation: expected .*got"):
        discrete_gaussian(deviation, 4)
