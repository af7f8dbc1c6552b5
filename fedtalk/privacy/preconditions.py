"""What may not be combined with privacy: refused before any work, with the reason and what to change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.federation.cohort import CohortSampler
from fedtalk.privacy.opening import usual_cohort
from fedtalk.privacy.secagg.graph import Assumptions
from fedtalk.privacy.secagg.settings import SMALLEST_COHORT
from fedtalk.privacy.settings import Privacy


def check_nothing_clear(validate_every: int, keep_optimizer: bool, callbacks: Iterable[object]) -> None:
    """Refuse what would take something of single clients out of them, in the clear.

    Raises:
        ConfigurationError: held-out metrics, clients' optimizers in the checkpoint, or a callback that shows clips.
    """
    if validate_every:
        raise ConfigurationError(
            "trainer.validate_every: metrics of clients' held-out clips in the clear are outside every guarantee: expected 0 "
            f"with privacy, got {validate_every}. Set it to 0, and measure with `fedtalk test` on people who agree."
        )
    if keep_optimizer:
        raise ConfigurationError(
            "trainer.local.keep_optimizer: a client's optimizer state tells its gradients, and would lie in the server's "
            "checkpoint: expected false with privacy, got true."
        )
    for callback in callbacks:
        if getattr(callback, "shows_clients", False):
            raise ConfigurationError(
                f"trainer.callbacks: {type(callback).__name__} shows what single clients have: expected no such callback "
                "with privacy. Leave it out."
            )


def check_parameters(privacy: Privacy, names: Iterable[str]) -> None:
    """Refuse noise on both LoRA factors unless it is asked for by name.

    Raises:
        ConfigurationError: both factors of a LoRA are exchanged.
    """
    names = list(names)
    factors = [factor for factor in ("lora_A", "lora_B") if any(factor in name for name in names)]
    if privacy.noised and len(factors) == 2 and not privacy.both_factors:
        raise ConfigurationError(
            "adapter.aggregation: noise on both LoRA factors multiplies, (B + x)(A + y): expected 'freeze_a' or 'fedsvd' with "
            "differential privacy, got both factors. Set model.adapter.aggregation: freeze_a, or say privacy.both_factors: true."
        )


def fewest_clients(assumptions: Assumptions, clients: int, minimum_clients: int) -> int:
    """Smallest cohort whose round isn't void: from it up to all ``clients``, every size withstands the assumptions.

    Of n clients, c may collude and d drop out, and two others at least must be left: c + d <= n - 2.
    """
    too_small = [
        size
        for size in range(SMALLEST_COHORT, clients + 1)
        if assumptions.colluding(size) + assumptions.dropouts(size) > size - 2
    ]
    return max(SMALLEST_COHORT, minimum_clients, *(size + 1 for size in too_small))


def check_cohorts(privacy: Privacy, sampler: CohortSampler, clients: int, fewest: int) -> None:
    """Refuse cohorts that are too small to hide in, and a delta that allows to publish one client.

    Raises:
        ConfigurationError: fewer than ``fewest`` clients are registered or usually drawn, or delta isn't below 1 / clients.
    """
    usual = usual_cohort(sampler, clients)
    if min(usual, clients) < fewest:
        raise ConfigurationError(
            f"trainer.cohort: the sum over one client is that client's update: expected cohorts of at least {fewest} with "
            f"privacy, got {usual:g} of {clients} clients. Enlarge the cohort, or lower trainer.minimum_clients or "
            "privacy.assumptions if these ask for more; data of one client can't be trained privately."
        )
    if privacy.noised and privacy.delta >= 1 / clients:
        raise ConfigurationError(
            f"privacy.delta: expected below 1 / clients = {1 / clients:g}, got {privacy.delta:g}: at that level publishing one "
            "client in the clear would count as private."
        )


def check_same_promise(saved: dict[str, Any] | None, noised: bool) -> None:
    """Refuse to go on with differential privacy after rounds without, and the other way round.

    Raises:
        ArtifactError: what the whole run would have spent could not be said.
    """
    before = saved is not None and saved["ledger"] is not None
    if before != noised:
        words = {True: "differentially private", False: "without differential privacy"}
        raise ArtifactError(
            f"the checkpoint's rounds were {words[before]}, the rounds to come are {words[noised]}: no epsilon would hold for "
            "the whole run. Expected the privacy settings that are saved with the run; else start a new run."
        )
