"""Placements: which processes take a client, and how they train it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Literal

from fedtalk.checks import check_choice, check_least
from fedtalk.errors import ConfigurationError

Kind = Literal["single", "ddp", "fsdp"]
Optimizer = Literal["adamw", "adamw8bit", "sgd"]
Precision = Literal["32-true", "bf16-mixed"]
"""Of local training; the adapter itself stays in 32 bits, as it is sent."""


@dataclass(frozen=True)
class Placement:
    """Where and how a client trains. All kinds give the same adapter for the same batches, up to rounding."""

    kind: Kind = "single"
    """``single``: one process takes the client (and workers take different clients). ``ddp``: several take it together, each
    with a copy of the model and its part of every batch. ``fsdp``: as ddp, and each keeps a part of the model only (FSDP2)."""
    processes: int = 1
    """How many take a client together: 1 for single, 2 or more for ddp and fsdp; a device each where there are GPUs."""
    precision: Precision | None = None
    """``32-true``, or ``bf16-mixed``: autocast to bfloat16, parameters and optimizer stay float32; None is the trainer's."""
    optimizer: Optimizer = "adamw"
    """``adamw``, or ``adamw8bit``: its two moments in 8 bits a number, blockwise (bitsandbytes). ``sgd``:
    plain gradient steps, which need a learning rate of their own."""
    accumulate: int = 1
    """Parts of a process's share of a batch that go through the model one after the other: less memory, the same gradient."""
    together: int = 1
    """For ``single``: up to so many clients of a cohort in one batch, each with its own adapter on the shared frozen network;
    equal to training them apart but for rounding, and faster where a client's batch is small. A client that can't
    open its clips, or whose values aren't finite, costs the others nothing. Where a step of the batch fails (out of memory,
    clips of another shape), all of them start again apart. A worker that is killed and a deadline are all of theirs."""
    compile: bool = False
    """Compile the network's training pass (torch.compile): every process does so at its first step, which takes minutes, and its
    steps are faster from then on. For runs of hours. With ``together``, batches of fewer clients run as they are."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them."""
    cpu_offload: bool = False
    """Of a GPU: fsdp keeps its shards in the machine's memory between uses, single and ddp the optimizer and its state."""
    processors: int | None = None
    """CPU cores that Ray sets aside for each process, and its threads where ``trainer.threads`` doesn't say; None to share out
    what there is."""
    gpus: float | None = None
    """GPUs that Ray sets aside for each process: 1, or a part of one (0.25: four clients at a time on a card); for ddp and fsdp
    more than half of one, since no two of their processes can meet on a card. None to share out what there is, where
    ``trainer.accelerator`` finds some."""
    resources: dict[str, float] | None = field(default=None, hash=False)
    """Custom resources that each process needs, by the names that a cluster's nodes were started with
    (``ray start --resources '{"site_a": 4}'``): so that a client's work is done where its clips are."""

    def __post_init__(self) -> None:
        check_choice("placement.kind", self.kind, Kind)
        check_choice("placement.optimizer", self.optimizer, Optimizer)
        if self.precision is not None:
            check_choice("placement.precision", self.precision, Precision)
        check_least("placement", 1, processes=self.processes, accumulate=self.accumulate, together=self.together,
                    processors=self.processors)  # fmt: skip
        self._check_resources()
        if (self.kind == "single") != (self.processes == 1):
            expected = "1 for single (trainer.workers says how many clients train at once)"
            raise ConfigurationError(
                f"placement.processes: expected {expected if self.kind == 'single' else f'2 or more for {self.kind}'}, "
                f"got {self.processes}"
            )
        if self.together > 1 and (self.kind != "single" or self.accumulate > 1 or self.optimizer != "adamw"):
            raise ConfigurationError(
                "placement.together: clients train in one batch by kind single, accumulate 1 and optimizer adamw (blocks of "
                "8-bit moments would reach from one client into the next): expected these or together: 1, got together: "
                f"{self.together} with {self.kind}, {self.accumulate} and {self.optimizer}"
            )
        if self.compile and self.kind == "fsdp":
            raise ConfigurationError(
                "placement.compile: fsdp gathers its shards between the network's blocks, which one compiled network can't do: "
                "expected compile: false, or kind single or ddp"
            )
        if self.optimizer == "adamw8bit" and importlib.util.find_spec("bitsandbytes") is None:
            raise ConfigurationError(
                "placement.optimizer: adamw8bit needs bitsandbytes, which is not installed: expected adamw, or "
                'pip install "fedtalk[eightbit]"'
            )

    def _check_resources(self) -> None:
        least = 0.0 if self.kind == "single" else 0.5
        if self.gpus is not None and not (self.gpus == 0 or least < self.gpus <= 1):
            expected = "0, a part of one, or 1" if self.kind == "single" else "0, or more than 0.5 and at most 1"
            raise ConfigurationError(f"placement.gpus: expected {expected} for {self.kind}, got {self.gpus}")
        for name, amount in (self.resources or {}).items():
            if name in ("CPU", "GPU") or not amount > 0:
                raise ConfigurationError(
                    "placement.resources: expected custom resources of a Ray cluster with amounts above 0 (cores are "
                    f"placement.processors, GPUs placement.gpus), got {name}: {amount}"
                )

    @property
    def needs_ray(self) -> bool:
        """Whether it can't be done by the main process alone."""
        return self.processes > 1 or bool(self.gpus) or bool(self.resources)

    def __str__(self) -> str:
        """What of it is not usual.

        >>> print(Placement("ddp", 2, gradient_checkpointing=True), Placement(together=4), sep="; ")
        ddp, processes 2, gradient_checkpointing; single, together 4
        """
        usual = {field.name: field.default for field in fields(self)}
        told = {name: value for name, value in vars(self).items() if name != "kind" and value != usual[name]}
        return ", ".join([self.kind, *(name if value is True else f"{name} {value}" for name, value in told.items())])


SINGLE = Placement()


class Placements:
    """Which placement a client has, by its name."""

    def __init__(self, default: Placement | None = None, rules: Mapping[str, Placement] | None = None) -> None:
        """
        Args:
            default: of clients that no rule names.
            rules: placements by name or pattern (``site-a-*``, as of a shell); the first that fits counts.
        """
        self.default = default or SINGLE
        self.rules = dict(rules or {})

    def of(self, client: str) -> Placement:
        """
        >>> Placements(rules={"site-a-*": Placement(accumulate=2)}).of("site-a-7").accumulate
        2
        """
        return next((placed for pattern, placed in self.rules.items() if fnmatchcase(client, pattern)), self.default)

    def groups(self, cohort: Sequence[str]) -> list[list[str]]:
        """The cohort in tasks: clients that train in one batch, in the cohort's order, of one placement each.

        >>> Placements(Placement(together=2)).groups(["anna", "bert", "cora"])
        [['anna', 'bert'], ['cora']]
        """
        waiting: dict[Placement, list[list[str]]] = {}
        for client in cohort:
            placed = self.of(client)
            tasks = waiting.setdefault(placed, [])
            if not tasks or len(tasks[-1]) == placed.together:
                tasks.append([])
            tasks[-1].append(client)
        return [task for tasks in waiting.values() for task in tasks]

    def __iter__(self) -> Iterator[tuple[str, Placement]]:
        """Every placement with the key that it has in the config."""
        yield "trainer.default_placement", self.default
        for pattern, placed in self.rules.items():
            yield f"trainer.placements[{pattern!r}]", placed
