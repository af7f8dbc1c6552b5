"""Settings that contradict each other say so, before anything else is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtalk.callbacks.aggregation import ISFA
from fedtalk.errors import ConfigurationError
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.federation.server import ServerOptimizer
from fedtalk.privacy.clipping import CLIP_NORMS, AdaptiveClipping
from fedtalk.privacy.private_rounds import PrivateRounds
from fedtalk.privacy.sealed_rounds import AggregationTask
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.settings import Privacy


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"target_epsilon": 8.0, "noise_multiplier": 1.0}, r"got both \(8 and 1\)\. Leave one out"),
        ({"epsilon_budget": 8.0}, r"privacy\.epsilon_budget: .*without it"),
        ({"target_epsilon": 8.0, "epsilon_budget": 8.0}, r"privacy\.epsilon_budget: .*Use target_epsilon"),
        ({"clip_norm": 0.0}, r"privacy\.clip_norm: expected .*got 0"),
        ({"clip_norm": float("nan")}, r"privacy\.clip_norm: expected .*got nan"),
        ({"noise_multiplier": 0.0}, r"privacy\.noise_multiplier: expected .*got 0"),
        ({"target_epsilon": -1.0}, r"privacy\.target_epsilon: expected .*got -1"),
        ({"delta": 0.0}, r"privacy\.delta: expected .*got 0"),
        ({"accountant": "gdp"}, r"privacy\.accountant: expected prv or rdp, got 'gdp'"),
        ({"where": "server"}, r"privacy\.where: expected central or distributed, got 'server'"),
        ({"coordinate_bits": 2}, r"privacy\.coordinate_bits: expected a number from 4 to 32, got 2"),
        ({"coordinate_bits": 33}, r"privacy\.coordinate_bits: expected .*got 33"),
        ({"clip_norm": 1e30}, r"privacy\.clip_norm: expected a number from 1e-06 to 1e\+06, got 1e\+30"),
        ({"clip_norm": 1e-30}, r"privacy\.clip_norm: expected .*got 1e-30"),
        ({"noise_multiplier": 1e-30}, r"privacy\.noise_multiplier: expected .*got 1e-30"),
        ({"noise_multiplier": 1e30}, r"privacy\.noise_multiplier: expected .*got 1e\+30"),
        ({"target_epsilon": 1e30}, r"privacy\.target_epsilon: expected .*got 1e\+30"),
        ({"target_epsilon": float("nan")}, r"privacy\.target_epsilon: expected .*got nan"),
        ({"delta": 1e-300}, r"privacy\.delta: expected .*got 1e-300"),
        ({"ring_bits": 100}, r"privacy\.ring_bits: expected a number from 2 to 62, got 100"),
        ({"dropout_probability": -0.1}, r"privacy\.dropout_probability: expected .*got -0.1"),
        ({"adaptive_clipping": AdaptiveClipping()}, r"privacy\.adaptive_clipping: expected with noise"),
        (
            {"noise_multiplier": 1.0, "secure_aggregation": False},
            r"privacy\.where: .*secure_aggregation: true, got false",
        ),
        ({"secure_aggregation": False}, r"privacy: expected secure_aggregation, noise, or both, got neither"),
        ({"insecure_noise_seed": 1}, r"privacy\.insecure_noise_seed: expected with noise only"),
    ],
)
def test_contradictions_are_refused(chosen: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Privacy(**chosen)


def test_what_fits_together_is_accepted_and_tells_its_budget() -> None:
    assert Privacy().budget is None and not Privacy().noised
    assert Privacy(target_epsilon=8.0).budget == 8.0 and Privacy(target_epsilon=8.0).noised
    assert Privacy(noise_multiplier=1.0, epsilon_budget=3.0).budget == 3.0
    assert not Privacy(noise_multiplier=1.0, where="central", secure_aggregation=False).distributed


EDGES = st.sampled_from([1e-30, 1e-6, 1e-3, 0.01, 0.5, 1.0, 7.0, 1e3, 1e4, 1e6, 1e30, math.inf, math.nan, -1.0])


@settings(max_examples=40, deadline=None)
@given(
    st.fixed_dictionaries(
        {"noise_multiplier": EDGES, "clip_norm": EDGES, "coordinate_bits": st.integers(0, 40)},
        optional={
            "delta": st.sampled_from([1e-300, 1e-12, 1e-9, 1e-3]), "ring_bits": st.integers(0, 70),
            "dropout_probability": EDGES, "quantile": EDGES, "rate": EDGES, "count_deviation": EDGES,
        },
    )
)  # fmt: skip
def test_any_number_is_refused_before_any_work_or_works(values: dict) -> None:
    """Whatever is accepted gives a finite sum from which the clients' vectors come back within the noise."""
    with TemporaryDirectory() as folder:
        names = [f"c{n}" for n in range(12)]
        task = AggregationTask(12, ["lora_B"], names, PoissonCohort(1.0), 1, 3, 0, Path(folder))
        adaptive = {name: values.pop(name) for name in ("quantile", "rate", "count_deviation") if name in values}
        try:
            clipping = AdaptiveClipping(**adaptive) if adaptive else None
            privacy = Privacy(
                accountant="rdp", assumptions=Assumptions(0.0, 0.3), adaptive_clipping=clipping, secure_aggregation=False,
                where="central", **{"delta": 1e-3, **values},
            )  # fmt: skip
            private = PrivateRounds(privacy, task)
        except ConfigurationError as error:
            assert "expected" in str(error) and "got" in str(error)
            return
        sealing = private.open_round(0, names, names)
        vector = private.vector(np.ones(12) * private.clip_norm, 1.0)
        total = sealing.open_sum([sealing.seal(name, vector) for name in names])
        deviation = private.mechanism.released_deviation
        assert np.abs(total - 12 * vector).max() < 8 * deviation + 12 * 12 * private.mechanism.step
        released = private.released(total)
        assert np.all(np.isfinite(released)) and CLIP_NORMS[0] <= private.clip_norm <= CLIP_NORMS[1]


@pytest.mark.parametrize(
    "make",
    [
        lambda value: ISFA(gamma=value), lambda value: ISFA(alpha=value),
        lambda value: ServerOptimizer(learning_rate=value), lambda value: ServerOptimizer(momentum=value),
        lambda value: ServerOptimizer(epsilon=value), lambda value: ServerOptimizer(betas=(value, 0.9)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [1e30, -1e-30, math.inf, math.nan])
def test_numbers_that_would_ruin_a_round_are_refused(make: Callable[[float], object], value: float) -> None:
    with pytest.raises(ConfigurationError, match=r"expected .*got"):
        make(value)
