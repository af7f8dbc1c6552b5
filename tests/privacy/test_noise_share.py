"""A client's share of the noise is sized by the cohort that it is masked among, and by nothing larger."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedtalk.federation.cohort import PoissonCohort
from fedtalk.privacy.private_rounds import PrivateRounds
from fedtalk.privacy.sealed_rounds import AggregationTask
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.settings import Privacy

DIMENSION = 20_000


@pytest.mark.parametrize("size", [8, 15])
def test_the_clients_of_a_small_cohort_reach_the_accounted_noise_by_themselves(size: int, tmp_path: Path) -> None:
    """What the server tops up it could leave out, so it doesn't count: measured is the opened sum before the top-up.

    24 are registered. Shares that 24 would reach the variance with are too small among 8.
    """
    names = [f"c{number}" for number in range(24)]
    privacy = Privacy(noise_multiplier=1.0, delta=1e-2, accountant="rdp", assumptions=Assumptions(0.1, 0.2))
    task = AggregationTask(
        dimension=DIMENSION, parameters=["lora_B"], clients=names, sampler=PoissonCohort(1.0), rounds=1, minimum_clients=3,
        seed=0, folder=tmp_path,
    )  # fmt: skip
    rounds = PrivateRounds(privacy, task)
    sealing = rounds.open_round(0, names[:size], names[:size])
    silence = np.zeros(rounds.settings.dimension)
    opened = sealing._ring_sum.open_ring([sealing.seal(name, silence) for name in names[:size]])  # type: ignore[attr-defined]
    mechanism = rounds.mechanism
    variance = float(np.mean(mechanism.fixed_point.ring.to_signed(opened).astype(float) ** 2))
    colluding = rounds.settings.assumptions.colluding(size)
    honest = rounds.settings.survivors_needed(size) - colluding
    error = 5 * (2 / DIMENSION) ** 0.5
    assert variance * honest / size > mechanism.accounted_variance * (1 - error)
    assert variance == pytest.approx(size * mechanism.share_deviation(size) ** 2, rel=error)
