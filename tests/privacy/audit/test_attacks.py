"""Membership and re-identification: curves by brute force, attacks that work where there is something to find."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.errors import ConfigurationError
from fedtalk.federation.vector import flatten
from fedtalk.privacy.audit.appearance import likeness, mean_face
from fedtalk.privacy.audit.gallery import profile_of
from fedtalk.privacy.audit.membership import loss_reduction, summarise
from fedtalk.privacy.audit.reidentification import match_gradients, rank_of_right, summarise_ranks
from fedtalk.privacy.audit.roc import auc, roc_curve, tpr_at_fpr
from fedtalk.talker.adapters import Adapter
from fedtalk.talker.module import Talker
from fedtalk.training.module import copy_state, load_state


def test_auc_is_the_mann_whitney_statistic() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        members, others = generator.integers(0, 6, 9).astype(float), generator.integers(0, 6, 13).astype(float)
        expected = mannwhitneyu(members, others).statistic / (9 * 13)
        assert auc(members, others) == pytest.approx(expected)
        pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(members, others)]
        assert auc(members, others) == pytest.approx(np.mean(pairs))


def test_the_curve_rises_from_corner_to_corner() -> None:
    members, others = np.array([0.9, 0.8, 0.1]), np.array([0.7, 0.2])
    false, true = roc_curve(members, others)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(false) >= 0) and np.all(np.diff(true) >= 0)
    assert tpr_at_fpr(members, others, 0.0) == pytest.approx(2 / 3)
    with pytest.raises(ConfigurationError, match="members and others"):
        roc_curve(members, np.array([]))


def _people(values: np.ndarray, name: str) -> dict[str, float]:
    return {f"{name}-{i}": float(value) for i, value in enumerate(values)}


def test_membership_bounds_need_a_difference_and_people() -> None:
    generator = np.random.default_rng(1)
    apart = summarise(
        _people(generator.normal(5, 1, 100), "in"), _people(generator.normal(0, 1, 200), "out"), 0, 1e-5, 0.95
    )
    assert apart.auc > 0.99 and apart.epsilon > 2 and apart.tpr_at_fpr["0.01"] > 0.9
    assert apart.auc_interval[0] <= apart.auc <= apart.auc_interval[1]
    assert apart.rates.positives == 100 and apart.rates.negatives == 100, "half of the others set the threshold"
    same = summarise(
        _people(generator.normal(0, 1, 100), "in"), _people(generator.normal(0, 1, 200), "out"), 0, 1e-5, 0.95
    )
    assert 0.4 < same.auc < 0.6 and same.epsilon < 0.5


def test_membership_bounds_are_valid_where_nobody_can_tell() -> None:
    """Members and others of one distribution: a bound above 0 in at most 5 % of audits."""
    generator = np.random.default_rng(2)
    above = 0
    for seed in range(150):
        inside, outside = generator.standard_normal(30), generator.standard_normal(60)
        order = generator.permutation(60)
        result = summarise(_people(inside, "in"), _people(outside[order], "out"), seed, 0.0, 0.95)
        above += result.epsilon > 0
    assert above <= 14, "binomial(150, 0.05) exceeds 14 once in 50"


def test_an_adapter_lowers_the_loss_of_those_it_was_trained_on(make_talker: Callable, prepared: list) -> None:
    """Ten steps on one speaker and ten on the other: members' reductions exceed the others' in sum."""
    talker = make_talker()
    start = copy_state(talker.exchanged_parameters())
    people = {"a": prepared[:2], "b": prepared[2:]}
    reduction = {}
    for member, clips in people.items():
        load_state(talker.exchanged_parameters(), start)
        optimizer = torch.optim.AdamW(talker.exchanged_parameters().values(), lr=3e-3)
        generator = torch.Generator().manual_seed(0)
        for step in range(10):
            optimizer.zero_grad()
            talker.training_step(talker.draw_batch(clips, 2, generator), step)["loss"].backward()
            optimizer.step()
        trained = copy_state(talker.exchanged_parameters())
        for person, theirs in people.items():
            reduction[member, person] = loss_reduction(talker, theirs, trained, start, 0, person)
        assert reduction[member, "a"] == loss_reduction(talker, prepared[:2], trained, start, 0, "a")
    assert reduction["a", "a"] + reduction["b", "b"] > reduction["a", "b"] + reduction["b", "a"]
    assert loss_reduction(talker, prepared[:2], start, start, 0, "a") == 0


@pytest.mark.slow
def test_a_gradient_step_is_traced_to_its_person() -> None:
    """On the shipped backbone, by who has the very clips but not the noise of the step: two clips of one among six people.

    By other clips of theirs people are hardly told apart: such a step follows the recording.
    """
    talker = Talker("shipped", adapter=Adapter(rank=2)).eval()
    start = copy_state(talker.exchanged_parameters())
    people = [Speaker.draw(0, "private", number) for number in range(6)]
    clips = [[talker.prepare_clip(make_clip(person, take, 20, 128)) for take in (0, 1)] for person in people]
    seen, made = ([profile_of(talker, start, own, seed).gradient for own in clips] for seed in (0, 1))
    assert seen[0].shape == flatten(start).shape
    common = np.mean(seen, axis=0)
    ranks = []
    for index, known in enumerate(seen):
        others = [gradient for other, gradient in enumerate(seen) if other != index]
        ranks.append(rank_of_right(*match_gradients(-made[index], known, others, common)))
    assert ranks.count(1) >= 4, f"{ranks}: by chance four of six are found once in a hundred times"


def test_matching_is_the_formula_and_blind_to_scale() -> None:
    generator = np.random.default_rng(0)
    update, right, common = generator.standard_normal((3, 50))
    decoys = list(generator.standard_normal((4, 50)))
    score, others = match_gradients(update, right, decoys, common)
    assert score == pytest.approx(-update @ (right - common) / np.linalg.norm(right - common))
    scaled, _ = match_gradients(3 * update, right, decoys, common)
    assert scaled == pytest.approx(3 * score) and len(others) == 4


def test_a_mean_face_changes_with_the_update_and_not_without(make_talker: Callable) -> None:
    talker = make_talker()
    start = copy_state(talker.exchanged_parameters())
    base = mean_face(talker, start, None, 0)
    assert base.shape == (talker.backbone.codec.latent_channels, talker.backbone.cells, talker.backbone.cells)
    assert torch.equal(mean_face(talker, start, np.zeros(len(flatten(start))), 0), base)
    moved = mean_face(talker, start, 0.3 * np.random.default_rng(0).standard_normal(len(flatten(start))), 0)
    assert not torch.allclose(moved, base)
    right, decoys = likeness(moved - base, moved - base + 1, [base - moved + 1], torch.ones_like(base))
    assert right == pytest.approx(1, abs=1e-5) and decoys[0] == pytest.approx(-1, abs=1e-5)


def test_ranks_and_their_summary() -> None:
    assert rank_of_right(1.0, [0.5, 0.2]) == 1 and rank_of_right(0.1, [0.5, 0.2]) == 3
    assert rank_of_right(0.5, [0.5, 0.5]) == 2, "ties are no success"
    summary = summarise_ranks({"a": 1, "b": 5}, 5)
    assert summary.first == 0.5 and summary.percentile == 0.5 and summary.chance == 0.2
    assert summary.first_interval[0] < 0.5 < summary.first_interval[1]
    with pytest.raises(ConfigurationError, match="a client and a decoy"):
        summarise_ranks({"a": 1}, 1)
