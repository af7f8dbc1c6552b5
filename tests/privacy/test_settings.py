"""Settings that contradict each other say so, before anything else is known."""

from __future__ import annotations

import pytest

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.clipping import AdaptiveClipping
from fedtalk.privacy.settings import Privacy


@pytest.mark.parametrize(
    ("settings", "message"),
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
        ({"coordinate_bits": 1}, r"privacy\.coordinate_bits: expected 2 to 32, got 1"),
        ({"adaptive_clipping": AdaptiveClipping()}, r"privacy\.adaptive_clipping: expected with noise"),
        (
            {"noise_multiplier": 1.0, "secure_aggregation": False},
            r"privacy\.where: .*secure_aggregation: true, got false",
        ),
        ({"secure_aggregation": False}, r"privacy: expected secure_aggregation, noise, or both, got neither"),
        ({"insecure_noise_seed": 1}, r"privacy\.insecure_noise_seed: expected with noise only"),
    ],
)
def test_contradictions_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Privacy(**settings)


def test_what_fits_together_is_accepted_and_tells_its_budget() -> None:
    assert Privacy().budget is None and not Privacy().noised
    assert Privacy(target_epsilon=8.0).budget == 8.0 and Privacy(target_epsilon=8.0).noised
    assert Privacy(noise_multiplier=1.0, epsilon_budget=3.0).budget == 3.0
    assert not Privacy(noise_multiplier=1.0, where="central", secure_aggregation=False).distributed
