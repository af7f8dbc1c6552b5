"""The ledger: the cohort's sampler and the accountants of what its rounds spend, in one object that can't disagree.

The ledger draws the cohorts itself, by the sampler whose rate it accounts for. Whoever sees the released adapters must
not know who took part, or sampling would amplify nothing: so cohorts under Poisson sampling come from 256 bits of the
operating system that no file ever holds, expanded by ChaCha20, and are keyed by the number of rounds charged, which only
rises. Neither a resumed run, nor an older checkpoint, nor a copied folder draws a cohort again that was released already.

A round is charged before its sum is opened, and the charge is on the disk (`fedtalk.privacy.ledger_record`) before that too,
in this folder and in every other that has a record of the same rounds. So a run that was killed anywhere has charged what
it may have released; a round that is taken again is charged again; and copies of a run count each other's rounds.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from fedtalk.errors import ArtifactError, ConfigurationError, FedTalkError
from fedtalk.federation.cohort import CohortSampler, PoissonCohort, RotatingCohort
from fedtalk.privacy.accounting import ACCOUNTANTS, History, adjacency, gaussian_epsilon
from fedtalk.privacy.charges import Charges
from fedtalk.privacy.ledger_record import RECORD, LedgerRecord, Terms, exchange, gather, read_record, take_over
from fedtalk.privacy.spent import Spent

SECRET_BYTES = 32
_VOID_SHARE = 0.01
"""Largest share of delta that may go to rounds that one client makes void, or not."""


def secret_rate(sampler: CohortSampler) -> float | None:
    """q of a sampler whose cohorts are a secret that counts; None where nothing is said to depend on one.

    Raises:
        ConfigurationError: there is no accounting for the sampler.
    """
    if type(sampler) is PoissonCohort:
        return sampler.rate
    if type(sampler) is RotatingCohort:
        return None
    raise ConfigurationError(
        "trainer.cohort: differential privacy is accounted for Poisson sampling, each client independently: expected "
        f"PoissonCohort, got {type(sampler).__name__}. The bounds don't hold for fixed-size cohorts; use "
        "fedtalk.federation.cohort.PoissonCohort with rate = size / clients, or RotatingCohort, each client once in b rounds, "
        "which is accounted for without sampling."
    )


class BudgetSpent(FedTalkError):
    """What was left of the budget is spent by now."""


class Ledger:
    """Draws the cohorts and accounts for their rounds."""

    def __init__(
        self,
        sampler: CohortSampler,
        clients: Sequence[str],
        noise_multiplier: float,
        delta: float,
        *,
        budget: float | None = None,
        accountant: str = "prv",
        void_probability: float = 0.0,
        rounds: int = 1,
        seed: int = 0,
        central: bool = False,
        insecure_seed: int | None = None,
    ) -> None:
        """
        Args:
            sampler: of the cohorts; its rate is read when a round is charged.
            clients: all who are registered.
            noise_multiplier: z of the rounds to come, relative to the sum's sensitivity.
            delta: of the guarantee, (0, 1).
            budget: epsilon against whoever sees the adapters that is not exceeded; none by default.
            accountant: ``prv`` or ``rdp``: which stops the run.
            void_probability: that a client can be noticed by a void round (`fedtalk.privacy.void_rounds`), a round.
            rounds: planned, for which delta is set aside.
            seed: of what is no secret, the order of a `RotatingCohort`.
            central: whether the server adds the noise, and sees sums without it.
            insecure_seed: TESTS ONLY: of the cohorts, which whoever knows it foresees.

        Raises:
            ConfigurationError: the sampler is not accounted for, or void rounds would take more than 1 % of delta.
        """
        secret_rate(sampler)
        self.sampler, self.clients, self.noise_multiplier, self.seed = sampler, clients, noise_multiplier, seed
        terms = Terms(delta, void_probability, rounds, accountant, budget, central, insecure_seed is not None)
        self.record = LedgerRecord(Charges(), terms)
        set_aside = void_probability * rounds
        if set_aside > _VOID_SHARE * delta:
            raise ConfigurationError(
                f"trainer.minimum_clients: a round that is void for want of clients tells that they were few. Expected "
                f"this to have a probability of at most {_VOID_SHARE * delta:g} in {rounds} rounds for one client to "
                f"decide, got {set_aside:.2g}. Lower minimum_clients or privacy.dropout_probability, or raise "
                "trainer.cohort's rate, the clients or privacy.assumptions.dropout_fraction."
            )
        self._name = secrets.token_hex(16)
        self._secret = (
            secrets.token_bytes(SECRET_BYTES)
            if insecure_seed is None
            else hashlib.sha256(b"insecure cohorts %d" % insecure_seed).digest()
        )
        self._known: dict[tuple, float] = {}

    def draw(self) -> list[str]:
        """The cohort of the next round to be charged, by the sampler that is accounted for; the same until it is charged."""
        if isinstance(self.sampler, PoissonCohort):
            return self.sampler.draw_secretly(self._stream(self.rounds), self.clients)
        cohort = self.sampler.draw(self.seed, self.rounds, self.clients)
        if isinstance(
            self.sampler, RotatingCohort
        ):  # rounds that were taken again have brought some their last turn forward
            most = self.sampler.participations(self.record.terms.planned)
            cohort = [client for client in cohort if self.charges.times_drawn(client) < most]
        return cohort

    def _stream(self, number: int) -> Callable[[int], bytes]:
        """ChaCha20 under the secret; the number of charges is the nonce, and met once under a secret."""
        nonce = bytes(4) + number.to_bytes(12, "little")  # 4 bytes of block counter, then the nonce
        encryptor = Cipher(algorithms.ChaCha20(self._secret, nonce), mode=None).encryptor()
        return lambda size: encryptor.update(bytes(size))

    @property
    def charges(self) -> Charges:
        """All that was charged, here and wherever it is known of."""
        return self.record.charges

    @property
    def rounds(self) -> int:
        """Rounds charged."""
        return self.charges.rounds

    @property
    def history(self) -> History:
        """(z, q, rounds) against whoever sees the adapters."""
        return self.charges.against_adapters()

    def charge(self, cohort: Sequence[str] | None = None) -> None:
        """Account for one more round, of the cohort that was drawn for it."""
        self._add(self.charges, self.draw() if cohort is None else cohort)

    def _add(self, charges: Charges, cohort: Sequence[str]) -> None:
        charges.add(self._name, self.noise_multiplier, secret_rate(self.sampler), cohort)

    def allows_another(self) -> bool:
        """Whether one more round stays within the budget, and there is somebody left for it."""
        if isinstance(self.sampler, RotatingCohort) and not self.draw():
            return False
        budget = self.record.terms.budget
        return budget is None or self.epsilon_after_another() <= budget

    def epsilon_after_another(self) -> float:
        """Epsilon, by the accountant that stops the run, if one more round were charged."""
        charges = self.charges.copy()
        self._add(charges, self.draw())
        return self._stopping_epsilon(charges)

    def _stopping_epsilon(self, charges: Charges) -> float:
        history, accountant = charges.against_adapters(), self.record.terms.accountant
        epsilon = self._epsilon(history, charges.rounds, accountant)
        return epsilon if math.isfinite(epsilon) else self._epsilon(history, charges.rounds, "rdp")

    def check_budget(self) -> None:
        """Refuse to release a round where what was charged since it began, by other copies of the run, left nothing for it.

        Raises:
            BudgetSpent: more is charged than the budget.
        """
        budget, epsilon = self.record.terms.budget, self._stopping_epsilon(self.charges)
        if budget is not None and epsilon > budget:
            raise BudgetSpent(
                f"privacy: expected at most epsilon {budget:g} with this round, got {epsilon:.3f}: copies of this run that go on "
                f"at the same time ({', '.join(sorted(self.record.places))}) have charged rounds since it began. Nothing of this "
                "round is released; let one copy go on at a time."
            )

    def spent(self) -> Spent:
        """Epsilon so far."""
        return self._spent(self.history, self.charges.drawn_every_time(), self.rounds)

    def planned(self) -> Spent:
        """Epsilon once all planned rounds are charged, from an empty history."""
        rounds, rate = self.record.terms.planned, secret_rate(self.sampler)
        times = self.sampler.participations(rounds) if isinstance(self.sampler, RotatingCohort) else rounds
        history = [(self.noise_multiplier, 1.0 if rate is None else rate, times)] if times else []
        unsampled = [(self.noise_multiplier, 1.0, times)] if times else []
        return self._spent(history, unsampled, rounds)

    def _spent(self, history: History, unsampled: History, rounds: int) -> Spent:
        terms = self.record.terms
        values = {name: self._epsilon(history, rounds, name) for name in ACCOUNTANTS}
        return Spent(
            rounds, values["prv"], values["rdp"], gaussian_epsilon(unsampled, terms.delta), terms.delta, terms.accountant,
            terms.budget, terms.central, adjacency(history), sum(times for _, _, times in unsampled),
        )  # fmt: skip

    def _epsilon(self, history: History, rounds: int, accountant: str) -> float:
        key = (accountant, rounds, *history)
        if key not in self._known:  # asked before the round and after it, and a second or so of work
            self._known[key] = epsilon_of(history, rounds, self.record.terms, accountant)
        return self._known[key]

    # On disk

    def write(self, folder: Path) -> None:
        """Write the charges beside the checkpoint and wherever else they are kept; on the disk when it returns.

        Takes over what other records of the same rounds have more.

        Raises:
            ArtifactError: one of them can't be read.
            OutputError: the folder can't be written.
        """
        exchange(self.record, folder)

    def recall(self, folder: Path) -> None:
        """Add what the record in ``folder`` has more than this ledger, and the places that it names.

        Raises:
            ArtifactError: a record can't be read; what was spent is not known.
        """
        found = read_record(folder)
        if found is not None:
            take_over(self.record, found, folder)
            self.record.places.add(str(folder.resolve()))
        gather(self.record)

    def check_unspent(self, folder: Path) -> None:
        """Refuse to forget the record of an earlier run.

        Raises:
            ConfigurationError: there is one.
        """
        if (folder / RECORD).exists():
            raise ConfigurationError(
                f"{folder / RECORD}: a run in this folder has spent epsilon on its clients already, and starting afresh would "
                "forget it. Go on with --ckpt_path last, or choose another trainer.default_root_dir; on the same clients both "
                "runs' epsilons add up."
            )

    def state_dict(self) -> dict[str, Any]:
        return self.record.as_json()

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Add what a checkpoint knows to what this ledger does; nothing charged is ever dropped.

        Raises:
            ArtifactError: the checkpoint's ledger can't be read.
        """
        try:
            found = LedgerRecord.from_json(saved)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"the checkpoint's privacy ledger can't be read ({type(error).__name__}: {error}); what the run spent is not "
                "known. Use a checkpoint of this version of fedtalk, or start a new run in another folder."
            ) from error
        take_over(self.record, found, Path("the checkpoint"))


def epsilon_of(history: History, rounds: int, terms: Terms, accountant: str) -> float:
    """Epsilon of a history after ``rounds`` rounds in all, what void rounds may tell taken off delta."""
    left = terms.delta - terms.void_probability * max(terms.planned, rounds)
    return ACCOUNTANTS[accountant](history, left) if left > 0 else math.inf
