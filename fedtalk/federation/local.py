"""Local training: the steps a client takes on its own data in one round."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from fedtalk.errors import ConfigurationError
from fedtalk.federation.module import FederatedModule, Prepared, copy_state
from fedtalk.randomness import derive_seed, torch_generator


@dataclass
class LocalTraining:
    """How a client trains."""

    steps: int = 20
    """Optimizer steps a round."""
    batch_size: int = 4
    """Windows of clips a step."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    """Largest L2 norm of a gradient; 0 for no limit."""
    proximal: float = 0.0
    """FedProx: mu of mu/2 * ||theta - theta_global||^2; 0 is FedAvg's objective."""
    schedule: str = "constant"
    """Learning rate over all rounds: ``constant`` or ``cosine`` (to zero)."""
    warmup_steps: int = 0
    """Steps of linear warm-up, counted over all rounds."""
    keep_optimizer: bool = False
    """Keep a client's optimizer state from round to round; for centralised training (one client)."""
    deadline_seconds: float | None = None
    """Time of a client's round, from opening its clips to sealing its update; who takes longer loses the update. Looked at
    between local steps. With a deadline the result depends on the machine's speed. None for no limit."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"local.{name}: expected at least 1, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ConfigurationError(f"local.learning_rate: expected a positive number, got {self.learning_rate}")
        for name in ("proximal", "gradient_clip", "weight_decay", "warmup_steps"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"local.{name}: expected 0 or more, got {getattr(self, name)}")
        if self.deadline_seconds is not None and not self.deadline_seconds > 0:
            raise ConfigurationError(
                f"local.deadline_seconds: expected seconds above 0, or null for no limit, got {self.deadline_seconds}"
            )
        if self.schedule not in ("constant", "cosine"):
            raise ConfigurationError(f"local.schedule: expected 'constant' or 'cosine', got {self.schedule!r}")

    def rate_at(self, step: int, total: int) -> float:
        """Learning rate of step ``step`` of ``total``, counted over all rounds.

        >>> LocalTraining(learning_rate=1.0, schedule="cosine").rate_at(50, 100)
        0.5
        """
        rate = self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))
        return rate


def proximal_term(parameters: dict[str, torch.nn.Parameter], start: dict[str, Tensor], mu: float) -> Tensor:
    """mu/2 * ||theta - theta_global||^2 (FedProx, Li et al. 2020, eq. 2)."""
    return mu / 2 * torch.stack([(p - start[name].to(p.device)).square().sum() for name, p in parameters.items()]).sum()


def train_locally(
    fabric: Fabric,
    module: FederatedModule,
    clips: Sequence[Prepared],
    local: LocalTraining,
    seed: int,
    client: str,
    round_number: int,
    total_rounds: int,
    optimizer_state: dict | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> dict:
    """Train the module's exchanged parameters in place on one client's clips.

    All randomness comes from (seed, round, client).

    Returns:
        the optimizer's state, to be kept where `LocalTraining.keep_optimizer` says so.
    """
    parameters = module.exchanged_parameters()
    start = copy_state(parameters) if local.proximal else {}
    start = {name: value.to(fabric.device) for name, value in start.items()}
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=local.learning_rate, weight_decay=local.weight_decay, betas=(0.9, 0.99)
    )
    if optimizer_state is not None:
        optimizer.load_state_dict(optimizer_state)
    wrapped: Any = fabric.setup_optimizers(optimizer)
    total = local.steps * total_rounds
    with isolated_rng(derive_seed(seed, "dropout", round_number, client)), training_mode(module):
        for step, batch in enumerate(_batches(fabric, module, clips, local, seed, client, round_number)):
            for group in optimizer.param_groups:
                group["lr"] = local.rate_at(round_number * local.steps + step, total)
            losses = module.training_step(batch, step)
            if local.proximal:
                losses["proximal"] = proximal_term(parameters, start, local.proximal)
                losses["loss"] = losses["loss"] + losses["proximal"]
            wrapped.zero_grad()
            fabric.backward(losses["loss"])
            if local.gradient_clip:
                torch.nn.utils.clip_grad_norm_(list(parameters.values()), local.gradient_clip)
            wrapped.step()
            if on_step is not None:
                on_step(step, {name: float(value.detach()) for name, value in losses.items()})
    return optimizer.state_dict()


def _batches(
    fabric: Fabric,
    module: FederatedModule,
    clips: Sequence[Prepared],
    local: LocalTraining,
    seed: int,
    client: str,
    round_number: int,
) -> Iterator[Prepared]:
    generator = torch_generator(seed, "batches", round_number, client)
    for _ in range(local.steps):
        batch = module.draw_batch(clips, local.batch_size, generator)
        yield {name: value.to(fabric.device) for name, value in batch.items()}


class isolated_rng:
    """Seed torch's global generator inside the block and put it back afterwards (dropout draws from it)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self.state = torch.get_rng_state()
        torch.manual_seed(self.seed)

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self.state)


class training_mode:
    """Dropout on inside the block and off afterwards, also when a client fails in it: others measure next."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def __enter__(self) -> None:
        self.module.train()

    def __exit__(self, *_: object) -> None:
        self.module.eval()
