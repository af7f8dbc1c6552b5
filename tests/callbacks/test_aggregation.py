"""A client's own weight, and settings that can't be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtalk.callbacks import ISFA, FedAvg, Median, Standing, Uniform, isfa_weight
from fedtalk.errors import ConfigurationError

COHORT = st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), min_size=1, max_size=8)


@given(COHORT, st.floats(0, 5))
def test_weights_of_a_cohort_are_proportional_to_the_papers(cohort: list, gamma: float) -> None:
    """w_k = n_k exp(gamma s_k) / sum_j n_j exp(gamma s_j), though no client knows any other."""
    own = np.array([isfa_weight(clips, 50, score, gamma) for clips, score in cohort])
    paper = np.array([clips * math.exp(gamma * score) for clips, score in cohort])
    np.testing.assert_allclose(own / own.sum(), paper / paper.sum(), rtol=1e-9)


@given(st.integers(1, 1000), st.integers(1, 100), st.floats(0, 1), st.floats(0, 10))
def test_a_weight_lies_in_0_1(clips: int, most: int, score: float, gamma: float) -> None:
    assert 0 < isfa_weight(clips, most, score, gamma) <= 1  # so that weighting can't raise a clipped norm


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_score_is_the_papers_where_it_is_asked_for(alpha: float, identity: float, stability: float) -> None:
    standing = Standing(clips=1, quality=0.5, identity=identity, stability=stability)
    assert ISFA(scores="paper", alpha=alpha).score(standing) == pytest.approx(
        alpha * identity + (1 - alpha) * stability
    )
    assert ISFA(alpha=alpha).score(standing) == 0.5


def test_more_reliable_counts_for_more_and_gamma_for_how_much() -> None:
    weights = [isfa_weight(4, 8, score, 2.0) for score in (0.2, 0.5, 0.9)]
    assert weights == sorted(weights) and weights[0] < weights[2]
    assert isfa_weight(4, 8, 0.2, 0.0) == isfa_weight(4, 8, 0.9, 0.0) == 0.5
    assert isfa_weight(8, 8, 0.0, 2.0) == pytest.approx(math.exp(-2))


def test_clients_measure_themselves_only_where_it_counts() -> None:
    assert (ISFA(gamma=0.1).measures, ISFA(gamma=0.1, scores="paper").measures) == ("clips", "estimates")
    assert {rule.measures for rule in (ISFA(gamma=0.0), FedAvg(), Uniform(), Median())} == {"nothing"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gamma", -0.1),
        ("scores", "papers"),
        ("alpha", 1.1),
        ("alpha", -0.1),
        ("alpha", float("nan")),
        ("most_clips", 0),
    ],
)
def test_wrong_settings_name_their_key(key: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"aggregation\.{key}: expected .*got"):
        ISFA(**{key: value})  # type: ignore[arg-type]
