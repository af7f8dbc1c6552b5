"""Sites against the run's assumptions: the tail of the draw, what is refused, and what is said of those that stay."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fedtalk.errors import ConfigurationError
from fedtalk.federation.cohort import FixedCohort, PoissonCohort
from fedtalk.federation.engines.flower.site_sizes import check_sizes, exceeding
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.settings import Privacy


def sites(**sizes: int) -> dict[str, list[str]]:
    return {site: [f"{site}{number}" for number in range(size)] for site, size in sizes.items()}


@pytest.mark.parametrize("sampler", [PoissonCohort(0.3), PoissonCohort(1.0), FixedCohort(20)])
@pytest.mark.parametrize("fraction", [0.2, 0.4])
def test_the_tail_is_that_of_the_draws(sampler: object, fraction: float) -> None:
    """Against a million of them."""
    own, others, draws = 12, 38, 1_000_000
    generator, allowed = np.random.default_rng(0), Assumptions(fraction, 0.1).colluding
    if isinstance(sampler, FixedCohort):
        ours = generator.hypergeometric(own, others, sampler.size, draws)
        total = np.full(draws, sampler.size)
    else:
        ours = generator.binomial(own, sampler.rate, draws)
        total = ours + generator.binomial(others, sampler.rate, draws)
    limits = np.array([allowed(size) for size in range(own + others + 1)])
    seen = float(np.mean(ours > limits[total]))
    assert exceeding(own, others, sampler, allowed) == pytest.approx(seen, abs=4 * np.sqrt(seen / draws) + 5e-6)


def test_one_site_of_three_is_no_tenth() -> None:
    privacy = Privacy(assumptions=Assumptions(0.1, 0.2))
    with pytest.raises(
        ConfigurationError, match=r"site north: all of its clients collude .* 20 of 60.*colluding_fraction 0\.1"
    ) as raised:
        check_sizes(sites(north=20, south=20, east=20), {}, privacy, PoissonCohort(0.5), 100)
    assert re.search("which [1-3] clients keep", str(raised.value))


def test_a_size_that_is_allowed_is_told_and_is_allowed() -> None:
    privacy = Privacy(assumptions=Assumptions(0.3, 0.2))
    with pytest.raises(ConfigurationError, match="clients keep") as raised:
        check_sizes(sites(north=400, south=600), {}, privacy, PoissonCohort(0.5), 10)
    largest = int(str(raised.value).split("which ")[1].split()[0])
    assert 150 < largest < 300
    others = {f"site{number}": 50 for number in range((1000 - largest) // 50)}
    check_sizes(sites(north=largest, **others, rest=(1000 - largest) % 50 or 1), {}, privacy, PoissonCohort(0.5), 10)


def test_the_draw_counts_and_not_the_mean_alone() -> None:
    """A tenth of the clients is now and then more than a fifth of a small cohort."""
    privacy = Privacy(assumptions=Assumptions(0.2, 0.2))
    ten = sites(**{f"site{number}": 10 for number in range(10)})
    with pytest.raises(ConfigurationError, match="probability"):
        check_sizes(ten, {}, privacy, PoissonCohort(0.2), 100)
    check_sizes(ten, {}, privacy, PoissonCohort(1.0), 100)


def test_invented_clients_are_refused() -> None:
    """As the site did that named 200 people who add no noise."""
    privacy = Privacy(assumptions=Assumptions(0.3, 0.2), noise_multiplier=1.0, delta=1e-4)
    inflated = sites(north=200, **{f"site{number}": 10 for number in range(9)})
    with pytest.raises(ConfigurationError, match=r"site north: .* it has 200 of 290"):
        check_sizes(inflated, {}, privacy, PoissonCohort(1.0), 10)
    trusted = Privacy(assumptions=Assumptions(0.0, 0.2))
    with pytest.raises(
        ConfigurationError, match=r"site north: expected at most 20 clients \(flower.most_clients\), got 200"
    ):
        check_sizes(inflated, {"north": 20}, trusted, PoissonCohort(1.0), 10)
    with pytest.raises(ConfigurationError, match=r"flower.most_clients: expected names of sites"):
        check_sizes(inflated, {"nort": 20}, trusted, PoissonCohort(1.0), 10)


def test_what_losing_a_site_costs_is_said() -> None:
    lines = check_sizes(
        sites(north=10, south=30), {}, Privacy(assumptions=Assumptions(0.0, 0.3)), PoissonCohort(1.0), 5
    )
    assert "site north: 10 of 40 clients (25%)" in lines[0] and "void with probability 0;" in lines[0]
    assert "site south: 30 of 40 clients (75%)" in lines[1] and "void with probability 1;" in lines[1]
    assert "25% of the clients' noise variance is left" in lines[1] and "every site is trusted" in lines[2]
