"""Sites size their clients' noise by the round's roster, as the in-process engine does, where not everybody is drawn."""

from __future__ import annotations

import torch

from fedtalk.federation.cohort import PoissonCohort
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.settings import Privacy


def test_over_sites_a_part_of_the_clients_gives_the_in_process_noise(federation, people) -> None:
    crowd = {f"{name}{n}": people[name] for n in range(3) for name in people}
    privacy = Privacy(
        clip_norm=5.0, assumptions=Assumptions(0.0, 0.3), noise_multiplier=0.7, delta=1e-2, accountant="rdp",
        insecure_noise_seed=5, dropout_probability=0.001,
    )  # fmt: skip
    cohort = PoissonCohort(0.8)
    names = sorted(crowd)
    sites = {"north": names[:3], "south": names[3:7], "east": names[7:]}
    transport = federation.transport(
        {site: {name: crowd[name] for name in own} for site, own in sites.items()}, privacy, cohort=cohort
    )
    _, got = federation.over_sites(transport, privacy, cohort=cohort)
    expected = federation.in_process(crowd, privacy, cohort=cohort)
    trained = sum(len(request.parts) - 1 for _, request, _ in transport.passed if request.kind == "train")
    assert 6 <= trained < 2 * len(names), "somebody is not on the roster, or nothing was tested"
    assert all(torch.equal(got[name], expected[name]) for name in expected)
