"""What a trainer's settings must fulfil, with each other and with module and data: refused before any work."""

from __future__ import annotations

from fedtalk.errors import ConfigurationError
from fedtalk.federation.federation import Federation
from fedtalk.privacy.settings import Privacy


def check_enough(enough: float, privacy: Privacy | None) -> None:
    """
    Raises:
        ConfigurationError: not a share, or one that privacy forbids.
    """
    if not 0 < enough <= 1:
        raise ConfigurationError(f"trainer.enough: expected a share of the cohort above 0, at most 1, got {enough}")
    if privacy is None:
        return
    if enough < 1 and privacy.noised:
        raise ConfigurationError(
            f"trainer.enough: with differential privacy expected 1, got {enough}: if the first to arrive close a round, "
            "one client more or less also changes who else is in the sum, which is not accounted for. Use "
            "trainer.local.deadline_seconds, which looks at one client at a time."
        )
    tolerated = privacy.assumptions.dropout_fraction
    if enough < 1 - tolerated:
        raise ConfigurationError(
            f"trainer.enough: secure aggregation opens no sum once more than privacy.assumptions.dropout_fraction = "
            f"{tolerated:g} of a cohort is missing: expected at least {1 - tolerated:g}, got {enough:g}"
        )


def check_placements(federation: Federation) -> None:
    """Refuse placements that can't be run; the module itself is asked for what only it knows.

    Raises:
        ConfigurationError: with the key that says so.
    """
    module, local = federation.module, federation.local
    federation.placements.check(federation.data.clients, local.batch_size, local.keep_optimizer, federation.device)
    if local.keep_optimizer and module.changes_form:
        raise ConfigurationError(
            "trainer.local.keep_optimizer: clients train other factors in every round, for which the state of the round before "
            "is of no use: expected false with model.adapter.aggregation: fedsvd, got true"
        )
    for key, placed in federation.placements:
        if placed.together > 1 and not module.trains_together:
            raise ConfigurationError(
                f"{key}: {type(module).__name__} can't train clients in one batch: expected together: 1 (a talker needs an "
                f"adapter for it), got {placed.together}"
            )
        try:
            if placed.gradient_checkpointing:
                module.set_gradient_checkpointing(False)
            if placed.compile:
                module.set_compiled(False)
            if placed.kind == "fsdp":
                module.shards()
        except ConfigurationError as error:
            raise ConfigurationError(f"{key}: {error}") from error
