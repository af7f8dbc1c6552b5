"""The audited mechanism is the run's own: what it opens is the sum, and a message is read as far as a server can."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedtalk.federation.cohort import PoissonCohort
from fedtalk.privacy.audit.audited_rounds import AuditedRounds, Setup
from fedtalk.privacy.audit.views import CLEAR, MASKED, NOISED, SUM, views_of
from fedtalk.privacy.clipping import AdaptiveClipping
from fedtalk.privacy.settings import Privacy

STATE = {"lora_B.first": torch.zeros(30, 40), "lora_B.second": torch.zeros(77)}
DIMENSION = 1277
NAMES = [f"client-{i}" for i in range(8)]


def _setup(privacy: Privacy | None, noise_multiplier: float | None = None) -> Setup:
    return Setup(privacy, STATE, PoissonCohort(1.0), 3, 1, noise_multiplier)


def _updates(norm: float = 0.5) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    drawn = {name: generator.standard_normal(DIMENSION) for name in NAMES}
    return {name: norm * value / np.linalg.norm(value) for name, value in drawn.items()}


def test_without_privacy_the_sum_is_exact_and_nobody_is_no_sum() -> None:
    mechanism = AuditedRounds(_setup(None), NAMES, seed=0)
    assert mechanism.dimension == DIMENSION
    np.testing.assert_allclose(mechanism.release(0, _updates().items()), sum(_updates().values()), atol=1e-6)
    assert mechanism.release(1, []) is None


@pytest.mark.parametrize("secure", [True, False])
def test_with_privacy_updates_are_clipped_and_the_sum_is_noised_as_accounted(secure: bool) -> None:
    """Every update is twice the bound. Deviation of a coordinate: z sqrt(2) C, by the ledger's own definition."""
    multiplier, clip = 0.8, 0.25
    privacy = Privacy(
        clip_norm=clip, noise_multiplier=5.0, secure_aggregation=secure, where="central", delta=1e-2,
        coordinate_bits=20,
    )  # fmt: skip
    mechanism = AuditedRounds(_setup(privacy, multiplier), NAMES, seed=1)
    error = mechanism.release(0, _updates().items()) - sum(_updates().values()) / 2
    expected = multiplier * 2**0.5 * clip
    assert np.std(error) == pytest.approx(expected, rel=5 / (2 * DIMENSION) ** 0.5), "the run's z, not the config's"
    again = AuditedRounds(_setup(privacy, multiplier), NAMES, seed=1)
    np.testing.assert_array_equal(again.release(0, _updates().items()) - sum(_updates().values()) / 2, error)
    assert mechanism.release(1, list(_updates().items())[:2]) is None, "too few for a sum"


def test_an_update_weighs_the_same_while_the_clipping_bound_moves() -> None:
    """All updates are above the bound, which follows them up; the released sums stay those of the first bound."""
    privacy = Privacy(
        clip_norm=0.1, noise_multiplier=1.0, where="central", delta=1e-2, secure_aggregation=False,
        adaptive_clipping=AdaptiveClipping(rate=0.5, count_deviation=5.0),
    )  # fmt: skip
    mechanism = AuditedRounds(_setup(privacy, 0.02), NAMES, seed=0)
    expected = sum(_updates().values()) * 0.1 / 0.5
    for number in range(3):
        released = mechanism.release(number, _updates().items())
        assert released @ expected / (expected @ expected) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("kind", ["protocol", "in process", "no privacy"])
def test_masked_messages_are_read_as_noise_and_bare_ones_as_the_update(kind: str) -> None:
    """The reader undoes packing, scale and rotation: without masks it would see everything."""
    privacy = None
    if kind != "no privacy":
        privacy = Privacy(
            clip_norm=1.0, secure_aggregation=kind == "protocol", noise_multiplier=1.0, where="central", delta=1e-2
        )
    mechanism = AuditedRounds(_setup(privacy, 1.0), NAMES, seed=2)
    updates = _updates()
    for client, seen in mechanism.masked(0, updates).items():
        assert abs(np.corrcoef(seen, updates[client])[0, 1]) < 5 / DIMENSION**0.5
    if kind != "protocol":
        # A cohort of one shares no masks with anybody.
        alone = AuditedRounds(_setup(privacy, 1.0), NAMES, seed=2)
        seen = alone.masked(0, {NAMES[0]: updates[NAMES[0]]})[NAMES[0]]
        assert np.corrcoef(seen, updates[NAMES[0]])[0, 1] > 0.99


def test_views_are_the_update_its_mask_the_sum_and_the_noised_sum() -> None:
    privacy = Privacy(clip_norm=1.0, noise_multiplier=1.0, delta=1e-2)
    updates = dict(list(_updates().items())[:5])
    views = views_of(_setup(privacy, 1.0), 10, updates, seed=0)
    assert list(views) == [CLEAR, MASKED, SUM, NOISED]
    for view in views.values():
        assert list(view) == list(updates)
    for client, update in updates.items():
        np.testing.assert_array_equal(views[CLEAR][client], update)
        np.testing.assert_allclose(views[SUM][client], sum(updates.values()), atol=1e-6)
        assert np.linalg.norm(views[NOISED][client] - sum(updates.values())) > 10
    bare = views_of(replace(_setup(None)), 10, updates, seed=0)
    assert list(bare) == [CLEAR, MASKED, SUM]
