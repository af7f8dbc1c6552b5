"""A client's round as data: what it is asked for, what its steps come to, and what of that goes into the sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from fedtalk.callbacks.aggregation import Measures, Standing
from fedtalk.federation.federation import Federation
from fedtalk.federation.vector import flatten
from fedtalk.privacy.sealed_rounds import SealedRounds
from fedtalk.privacy.sealing import to_ring
from fedtalk.training.local import LocalTraining

OnStep = Callable[[str, int, dict[str, float]], None]
"""Called after a client's local step with its name, the step and the terms of its loss; may raise to stop."""


@dataclass
class ClientReport:
    """What a client tells about its round in the clear; monitors show it, aggregation does not need it."""

    client: str
    clips: int
    losses: dict[str, float]
    """Means over the local steps, by term."""
    quality: float = 1.0
    identity: float = 1.0
    stability: float = 1.0
    seconds: float = 0.0
    weight: float = 0.0
    """Of its update; known once that is weighed."""


@dataclass(frozen=True)
class Failure:
    """Why a client's update was lost. Not the error itself, whose traceback would keep the memory of the failed step."""

    kind: str
    message: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """
        >>> print(Failure.of(OSError("disk gone")))
        OSError: disk gone
        >>> print(Failure.of(MemoryError()))
        MemoryError
        """
        return cls(type(error).__name__, str(error))

    @property
    def device_lost(self) -> bool:
        """Whether its process can't use its device any more, whatever it does next (CUDA's "sticky" errors)."""
        return self.kind == "AcceleratorError" or self.message.startswith("CUDA error")

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


@dataclass
class ClientUpdate:
    """What comes of a client's round, before it is sealed; it stays in the client half."""

    contribution: np.ndarray
    """(d + 1,) or (d + 2,) float64: `SealedRounds.vector`."""
    report: ClientReport


@dataclass(frozen=True)
class LocalWork:
    """What clients are asked for: their part of a round, or training that comes after the rounds."""

    round_number: int
    rounds: int
    """In all, for schedules of the learning rate."""
    local: LocalTraining
    measures: Measures = "nothing"
    """What clients measure of themselves."""
    after: int | None = None
    """Rounds, after which what a client keeps is taken; those before this one by default."""
    controls: bool = False
    """Whether steps are corrected by control variates, which the start then brings."""
    personal: bool = False
    """Whether it is for a client's own adapter, which begins with what is found in closed form (`FederatedModule.looks_of`)."""
    stream: str = ""
    """Goes before a client's name in the keys of its random streams, where a round's are not to be drawn again."""


@dataclass
class LocalResult:
    """What a client's local work comes to, before it is weighed. It may have been done in another process of the client's."""

    report: ClientReport
    state: dict[str, Tensor]
    """The exchanged parameters after the local steps, on the CPU."""
    memory_bytes: int = 0
    """The largest that its process had so far; of the device where that is a GPU."""
    optimizer: dict | None = None
    """Its state, where `LocalTraining.keep_optimizer` asks for it."""
    kept: dict[str, Tensor] | None = None
    """The kept parameters after the local steps, on the CPU, where the module has any."""
    looks: Any = None
    """`FederatedModule.looks_of` the client, where the work is personal."""
    control: dict[str, Tensor] | None = None
    """The client's control variate after the local steps, where there are any."""


def weigh(
    result: LocalResult, start: Mapping[str, Tensor], round_number: int, federation: Federation, sealed: SealedRounds
) -> ClientUpdate:
    """From a client's local work to its contribution.

    Args:
        result: of a round's work.
        start: what it began with.
        round_number: of the run.
        federation: whose aggregation weighs.
        sealed: what makes a vector of it.

    Raises:
        FedTalkError: the update can't be sealed, and is lost.
    """
    report = result.report
    client, faulty = report.client, report.client in federation.data.unreliable_clients
    weight = federation.aggregation.weight(
        Standing(report.clips, report.quality, report.identity, report.stability, faulty)
    )
    contribution = sealed.vector(flatten({name: result.state[name] - start[name] for name in start}), weight)
    to_ring(contribution, client)  # an update that can't be sealed is lost here, and not the round later
    # Not of an update that was lost: its moments may be as bad as it was.
    keeps = {name: value for name in ("optimizer", "kept", "control") if (value := getattr(result, name)) is not None}
    if keeps:
        federation.client_states.save(client, round_number, keeps)
    return ClientUpdate(contribution, replace(report, weight=weight))
