"""All private rounds of a run: what a client makes of its update, and what the server may make of the sums."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedtalk.federation.cohort import RotatingCohort
from fedtalk.privacy.accounting import adjacency
from fedtalk.privacy.aggregators import Aggregator, Masked
from fedtalk.privacy.aggregators.clipped import contribution
from fedtalk.privacy.clipping import update_multiplier
from fedtalk.privacy.discrete_gaussian import Entropy, insecure_entropy, operating_system
from fedtalk.privacy.ledger import secret_rate
from fedtalk.privacy.mechanism import UNITS_BOUND, Mechanism, Noise
from fedtalk.privacy.opening import open_ledger, usual_cohort
from fedtalk.privacy.participation import Participation
from fedtalk.privacy.preconditions import check_cohorts, check_parameters, check_same_promise, fewest_clients
from fedtalk.privacy.private_round import ClientEncoding, SumDecoding, bounded_sum
from fedtalk.privacy.sealed_rounds import AggregationTask, SealedRounds
from fedtalk.privacy.sealing import PairwiseSealing, RingSum, SealingRound
from fedtalk.privacy.secagg.client import Enrolled
from fedtalk.privacy.secagg.ring import SMALLEST_RING_BITS
from fedtalk.privacy.secagg.settings import AggregationSettings
from fedtalk.privacy.secure_sum import SecureSum
from fedtalk.privacy.settings import Privacy
from fedtalk.privacy.void_rounds import DropoutWatch

log = logging.getLogger("fedtalk")


class PrivateRounds(SealedRounds):
    """Clipping, sealing, noise and accounts of one run."""

    private = True

    def __init__(self, privacy: Privacy, task: AggregationTask) -> None:
        """
        Raises:
            ConfigurationError: privacy and the run don't fit together (`preconditions`, `Mechanism`, `Ledger`).
        """
        self.privacy, self.task = privacy, task
        self.clip_norm = privacy.clip_norm
        self.report: dict[str, float] = {}
        """Scalars of the last round that may be shown: functions of noised sums and of public settings alone."""
        self.told = ""
        """The same in a few words, after a round that was noised."""
        check_parameters(privacy, task.parameters)
        adaptive = privacy.adaptive_clipping is not None
        settings = AggregationSettings(
            session=task.session or secrets.token_bytes(16),
            dimension=task.dimension + 1 + adaptive,
            bits=SMALLEST_RING_BITS,  # until the mechanism knows which ring it needs
            assumptions=privacy.assumptions,
        )
        if privacy.noised:
            secret_rate(task.sampler)
        self._fewest = fewest_clients(privacy.assumptions, len(task.clients), task.minimum_clients)
        check_cohorts(privacy, task.sampler, len(task.clients), self._fewest)
        self._expected_cohort = usual_cohort(task.sampler, len(task.clients))
        self._count_scale = 0.0
        self.settings = settings
        self.ledger = open_ledger(privacy, task, self.updates_needed) if privacy.noised else None
        self._participation: Participation | None = None
        if self.ledger is not None and isinstance(task.sampler, RotatingCohort):
            self._participation = Participation(task.folder, task.sampler.participations(task.rounds))
        self.mechanism = self._build_mechanism(settings)
        self.settings = replace(settings, bits=self.mechanism.fixed_point.bits)
        self.ids = {client: number for number, client in enumerate(task.clients)}
        """The clients' numbers in the protocol."""
        self._members: dict[str, Enrolled] = {}
        self._cohort: list[str] | None = None
        secret = privacy.noised and (secret_rate(task.sampler) or 1) < 1
        self._dropouts = DropoutWatch(privacy.dropout_probability) if secret else None
        self.insecure_seeds = [] if privacy.insecure_noise_seed is None else [privacy.insecure_noise_seed]

    def _build_mechanism(self, settings: AggregationSettings) -> Mechanism:
        privacy, task = self.privacy, self.task
        norm_bound, noise = UNITS_BOUND, None
        if self.ledger is not None:
            multiplier = self.ledger.noise_multiplier
            noise = Noise(multiplier, privacy.distributed)
            if privacy.adaptive_clipping is not None:
                deviation = privacy.adaptive_clipping.deviation(self._expected_cohort)
                self._count_scale = update_multiplier(multiplier, deviation) * UNITS_BOUND / deviation
                norm_bound = math.hypot(UNITS_BOUND, self._count_scale / 2)
        return Mechanism(
            settings.dimension, norm_bound, self._fewest, len(task.clients), settings, noise,
            privacy.coordinate_bits, privacy.ring_bits,
        )  # fmt: skip

    def announce(self) -> None:
        """Say what the run promises, and to whom."""
        privacy, mechanism = self.privacy, self.mechanism
        how = "secure aggregation" if privacy.secure_aggregation else "masks within this process"
        log.info(
            "privacy: %s of %d coordinates, %d bits each; updates clipped to %g%s",
            how, mechanism.dimension, mechanism.fixed_point.bits, self.clip_norm,
            " at first, then adaptively" if privacy.adaptive_clipping else "",
        )  # fmt: skip
        if self.ledger is None:
            log.info("privacy: no noise, so no epsilon: sums may tell about single clients")
            return
        rate = secret_rate(self.task.sampler)
        log.info(
            "privacy: %s noise, multiplier %.4f, %s; delta %g, adjacency: %s; budget %s, by %s",
            privacy.where, self.ledger.noise_multiplier,
            "participation in turns, without sampling" if rate is None else f"Poisson rate {rate:g}", privacy.delta,
            adjacency([(self.ledger.noise_multiplier, rate or 1.0, 1)]),
            "none" if privacy.budget is None else f"epsilon {privacy.budget:g}", privacy.accountant.upper(),
        )  # fmt: skip
        if self.insecure_seeds:
            log.warning(
                "INSECURE: privacy.insecure_noise_seed %s seeds the noise: whoever knows it can subtract the noise. This "
                "run protects nobody, whatever epsilon says; it is for tests only.", self.insecure_seeds,
            )  # fmt: skip

    # Cohort and budget

    def draw_cohort(self, round_number: int) -> list[str]:
        """Who takes part."""
        task = self.task
        if self.ledger is not None:
            self._cohort = self.ledger.draw()
            return list(self._cohort)
        return task.sampler.draw(task.seed, round_number, task.clients)

    def updates_needed(self, cohort: int) -> int:
        """Fewest updates of a cohort for which there is a sum at all."""
        return max(self._fewest, self.settings.survivors_needed(cohort))

    def allows_another(self) -> bool:
        """Whether the budget allows another round; says so where it doesn't."""
        ledger = self.ledger
        if ledger is None or ledger.allows_another():
            return True
        log.info(
            "privacy: stopped after %d rounds: another one would take epsilon to %.3f, above the budget of %s, or find "
            "nobody who may still take part", ledger.rounds, ledger.epsilon_after_another(), self.privacy.budget,
        )  # fmt: skip
        for line in ledger.spent().lines():
            log.info("privacy: %s", line)
        return False

    @property
    def shown(self) -> dict[str, float]:
        return self.report

    def charge(self) -> None:
        """Account for a round before anything of it is released, on disk too; a round that ends up void has cost as much.

        Raises:
            BudgetSpent: other copies of the run have spent what was left meanwhile; nothing of the round may be released.
        """
        self.report = {}
        if self.ledger is not None:
            self.ledger.charge(self._cohort)
            self.ledger.write(self.task.folder)
            self.ledger.check_budget()
            self._cohort = None
            spent = self.ledger.spent()
            self.told = str(spent)
            suffix = "; INSECURE: seeded noise" if self.insecure_seeds else ""
            for line in spent.lines():
                log.info("privacy: %s%s", line, suffix)
            insiders = "epsilon_sites" if spent.central else "epsilon_server_and_sites"
            self.report = {
                "epsilon_adapters_prv": spent.prv, "epsilon_adapters_rdp": spent.rdp, insiders: spent.no_sampling,
                "delta": spent.delta,
            }  # fmt: skip

    def note_dropouts(self, cohort: int, survivors: int) -> None:
        """Tell the server's watch over dropouts how a round went."""
        if self._dropouts is not None:
            self._dropouts.note(cohort, survivors)

    # The client half

    def consenting(self, clients: Iterable[str]) -> list[str]:
        return list(clients) if self._participation is None else self._participation.consenting(clients)

    def vector(self, update: np.ndarray, weight: float) -> np.ndarray:
        """(a clip(delta, C) / C, a) and, with adaptive clipping, c (b - 1/2).

        Args:
            update: (d,) float64, finite.
            weight: a, in [0, 1]; never above 1, or the norm bound would not hold.
        """
        return contribution(update, weight, self.clip_norm, self._count_scale)

    def open_round(self, round_number: int, cohort: Sequence[str], survivors: Sequence[str]) -> SealingRound:
        """The sealing of a round.

        Raises:
            AbortedRound: too few clients.
        """
        ring_sum: RingSum
        if self.privacy.secure_aggregation:
            members = {client: self.member(client) for client in cohort}
            ring_sum = SecureSum(round_number, cohort, members, self.ids, self.settings)
        else:
            ring_sum = PairwiseSealing(round_number, survivors)
        return Masked(self._bounded_sum(round_number), ring_sum, len(cohort))

    def member(self, client: str, last_round: int = -1) -> Enrolled:
        """A client's half of the protocol between rounds, kept from the first time that it is asked for. Its id is its
        invitation's.

        Args:
            client: whose.
            last_round: newest round that it took part in before this object was made; -1 for none.
        """
        return self._members.setdefault(client, Enrolled(None, self.settings, last_round=last_round))

    def encoding(self, round_number: int) -> ClientEncoding:
        """What a client makes of its vector before it is masked."""
        return ClientEncoding(self._bounded_sum(round_number), self.consenting)

    def _bounded_sum(self, round_number: int) -> Aggregator:
        return bounded_sum(round_number, self.mechanism, self.task.seed, partial(self._entropy, round_number))

    def _entropy(self, round_number: int, whose: str) -> Entropy:
        seed = self.privacy.insecure_noise_seed
        return operating_system if seed is None else insecure_entropy(seed, round_number, whose)

    # The server half

    def decoding(self, round_number: int) -> SumDecoding:
        """What the server makes of an opened sum."""
        return SumDecoding(self._bounded_sum(round_number))

    def released(self, total: np.ndarray) -> np.ndarray:
        """From the opened sum: (sum a delta, sum a) in the update's own units, its last coordinate safe to divide by.

        All of it is post-processing. A sum of weights below one deviation of its own noise is raised to that: divided by
        less, the noise would be blown up without limit. Moves the clipping bound for the rounds to come.
        """
        deviation = self.mechanism.released_deviation
        dimension = self.task.dimension
        weight = max(float(total[dimension]), deviation)
        result = np.append(total[:dimension] * self.clip_norm, weight)
        self.report |= {"clip_norm": self.clip_norm, "weight_sum": weight}
        if self.ledger is not None:
            # Updates in the sum are at most C times their weights long; the noise is about deviation sqrt(d) C.
            self.report["signal_to_noise_at_most"] = weight / (deviation * math.sqrt(dimension))
        adaptive = self.privacy.adaptive_clipping
        if adaptive is not None:
            noisy_count = float(total[dimension + 1]) / self._count_scale
            self.clip_norm = adaptive.moved(self.clip_norm, noisy_count, self._expected_cohort)
        return result

    # Resuming

    def state_dict(self) -> dict[str, Any]:
        return {
            "clip_norm": self.clip_norm,
            "ledger": None if self.ledger is None else self.ledger.state_dict(),
            "insecure_seeds": self.insecure_seeds,
        }

    def load_state_dict(self, saved: dict[str, Any] | None) -> None:
        """Go on after a checkpoint, with all that was charged in it or recorded beside it since.

        Raises:
            ArtifactError: the checkpoint's rounds promised something else than the rounds to come.
        """
        check_same_promise(saved, self.ledger is not None)
        if saved is not None:
            self.insecure_seeds = sorted({*self.insecure_seeds, *saved["insecure_seeds"]})
            if self.privacy.adaptive_clipping is not None:
                self.clip_norm = saved["clip_norm"]
            if self.ledger is not None:
                self.ledger.load_state_dict(saved["ledger"])
        self.recall()

    def recall(self, folder: Path | None = None) -> None:
        if self.ledger is not None:
            self.ledger.recall(folder or self.task.folder)

    def check_unspent(self) -> None:
        if self.ledger is not None:
            self.ledger.check_unspent(self.task.folder)
