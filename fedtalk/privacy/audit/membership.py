"""Membership of a client in the released adapter: did this person take part?

The attacker holds the released adapter, the public backbone and a person's clips. Its statistic is by how much the
adapter lowers the training objective on those clips, the same noise and noise levels with and without it, relative to
the loss without (after Yeom et al. 2018 and the reference-calibrated attack of Watson et al. 2022; the backbone is the
reference).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedtalk.data.source import ClipData
from fedtalk.privacy.audit.clopper_pearson import AttackRates
from fedtalk.privacy.audit.opened_run import OpenedRun
from fedtalk.privacy.audit.roc import auc, roc_curve, tpr_at_fpr
from fedtalk.randomness import numpy_generator, torch_generator
from fedtalk.talker.module import Talker
from fedtalk.training.module import Prepared, load_state

LEVELS = 16
"""Windows a person, each at another noise level, evenly spread."""
CALIBRATION_FPR = 0.05
"""The threshold leaves this share of the non-members that it is set on above it."""


@dataclass(frozen=True)
class MembershipResult:
    """What the attack came to."""

    members: dict[str, float]
    """Score by client; larger means "took part"."""
    others: dict[str, float]
    auc: float
    auc_interval: tuple[float, float]
    """95 % bootstrap interval over people."""
    tpr_at_fpr: dict[str, float]
    """True positive rate at low false positive rates, over all thresholds; an estimate, not a bound."""
    roc: tuple[list[float], list[float]]
    """(FPR, TPR)."""
    rates: AttackRates
    """At one threshold, set on the half of the non-members that is not counted here."""
    epsilon: float
    """Lower bound from ``rates``; its confidence takes people for independent trials, which one run does not make sure."""


def audit_membership(
    run: OpenedRun,
    members: Sequence[str],
    others: ClipData,
    *,
    seed: int,
    delta: float,
    confidence: float,
    on_person: Callable[[str], None] | None = None,
) -> MembershipResult:
    """Attack the released adapter.

    Args:
        run: the run.
        members: of its clients, those that are attacked.
        others: people who took no part.
        seed: of noise, windows and the split of the non-members.
        delta: at which epsilon is bounded.
        confidence: of the bound.
        on_person: called before each person.
    """

    def scores(data: ClipData, people: Sequence[str]) -> dict[str, float]:
        found = {}
        for person in people:
            if on_person is not None:
                on_person(person)
            clips = run.prepared(data, person)
            found[person] = loss_reduction(run.module, clips, run.released, run.initial, seed, person)
        return found

    return summarise(scores(run.data, members), scores(others, others.clients), seed, delta, confidence)


@torch.no_grad()
def loss_reduction(
    module: Talker,
    clips: Sequence[Prepared],
    released: dict[str, Tensor],
    initial: dict[str, Tensor],
    seed: int,
    person: str,
) -> float:
    """Share of the objective on a person's clips that the adapter takes away, at `LEVELS` noise levels; below 1.

    Args:
        module: the talker; its adapter is overwritten.
        clips: the person's prepared clips.
        released: the adapter under attack.
        initial: the state it started from.
        seed: of windows and noise.
        person: names the stream.
    """
    batch = module.draw_batch(clips, LEVELS, torch_generator(seed, "membership", person))
    batch["audio_present"][:], batch["reference_present"][:] = True, True
    batch["timestep"] = torch.linspace(0, len(module.noise_schedule.signal) - 1, LEVELS).round().long()
    batch = {name: value.to(module.device) for name, value in batch.items()}
    losses = []
    for state in (released, initial):
        load_state(module.exchanged_parameters(), state)
        losses.append(float(torch.stack(list(module.loss_terms(batch).values())).sum()))
    return 1 - losses[0] / losses[1]


def summarise(
    members: dict[str, float], others: dict[str, float], seed: int, delta: float, confidence: float
) -> MembershipResult:
    """Curves and bounds from scores; arguments as in `audit_membership`, scores by person."""
    inside, outside = np.array(list(members.values())), np.array(list(others.values()))
    # The threshold must not depend on whom it is tested on: half of the non-members set it, the other half is counted.
    order = numpy_generator(seed, "membership calibration").permutation(len(outside))
    calibration, tested = outside[order[: len(outside) // 2]], outside[order[len(outside) // 2 :]]
    threshold = float(np.quantile(calibration, 1 - CALIBRATION_FPR, method="higher")) if len(calibration) else 0.0
    rates = AttackRates(int(np.sum(inside > threshold)), len(inside), int(np.sum(tested > threshold)), len(tested))
    false, true = roc_curve(inside, outside)
    return MembershipResult(
        members,
        others,
        auc(inside, outside),
        _bootstrap_auc(inside, outside, seed),
        {f"{fpr:g}": tpr_at_fpr(inside, outside, fpr) for fpr in (0.01, 0.05, 0.1)},
        (false.tolist(), true.tolist()),
        rates,
        rates.epsilon_at_least(delta, confidence),
    )


def _bootstrap_auc(inside: np.ndarray, outside: np.ndarray, seed: int, draws: int = 1000) -> tuple[float, float]:
    generator = numpy_generator(seed, "membership bootstrap")
    wins = (inside[:, None] > outside[None]) + 0.5 * (inside[:, None] == outside[None])
    shares = [
        generator.multinomial(len(people), np.full(len(people), 1 / len(people)), draws) / len(people)
        for people in (inside, outside)
    ]
    low, high = np.quantile(np.einsum("di,ij,dj->d", shares[0], wins, shares[1], optimize=True), [0.025, 0.975])
    return float(low), float(high)
