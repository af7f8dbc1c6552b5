"""Local training: the steps a client takes on its own data in one round."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from fedtalk.ahead import ahead
from fedtalk.checks import check_above, check_choice, check_least
from fedtalk.errors import ConfigurationError
from fedtalk.randomness import derive_seed, torch_generator
from fedtalk.training.module import FederatedModule, Prepared
from fedtalk.training.optimizer import LocalOptimizer
from fedtalk.training.placement import SINGLE, Placement

Schedule = Literal["constant", "cosine"]
MOST_RATE = 100.0
"""Of learning: whatever is larger ends in numbers that are not finite."""


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
    schedule: Schedule = "constant"
    """Learning rate over all rounds: ``constant`` or ``cosine`` (to zero)."""
    warmup_steps: int = 0
    """Steps of linear warm-up, counted over all rounds."""
    keep_optimizer: bool = False
    """Keep a client's optimizer state from round to round; for centralised training (one client)."""
    deadline_seconds: float | None = None
    """Time of a client's round, from opening its clips to sealing its update; who takes longer loses the update. Looked at
    between local steps; a worker that hangs within one is killed a second later. With a deadline the result depends on the
    machine's speed. None for no limit."""

    def __post_init__(self) -> None:
        check_least("local", 1, steps=self.steps, batch_size=self.batch_size)
        check_above("local", MOST_RATE, learning_rate=self.learning_rate)
        check_least("local", 0, proximal=self.proximal, gradient_clip=self.gradient_clip, weight_decay=self.weight_decay,
                    warmup_steps=self.warmup_steps)  # fmt: skip
        if self.deadline_seconds is not None and not 0 < self.deadline_seconds < math.inf:
            raise ConfigurationError(
                f"local.deadline_seconds: expected seconds above 0, or null for no limit, got {self.deadline_seconds}"
            )
        check_choice("local.schedule", self.schedule, Schedule)

    def rate_at(self, step: int, total: int) -> float:
        """Learning rate of step ``step`` of ``total``, counted over all rounds.

        >>> LocalTraining(learning_rate=1.0, schedule="cosine").rate_at(50, 100)
        0.5
        """
        rate = self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))
        return rate

    def rates(self, round_number: int, rounds: int) -> float:
        """Sum of the learning rates of a round's steps.

        >>> LocalTraining(steps=3, learning_rate=0.5).rates(0, 2)
        1.5
        """
        first = round_number * self.steps
        return sum(self.rate_at(first + step, self.steps * rounds) for step in range(self.steps))


@torch.no_grad()
def add_proximal_gradient(parameters: Mapping[str, nn.Parameter], start: Mapping[str, Tensor], mu: float) -> Tensor:
    """Add the gradient of mu/2 * ||theta - theta_global||^2 (FedProx, Li et al. 2020, eq. 2) to the parameters' own.

    After the backward pass, where shared batches have been averaged already: the term counts once however many processes and
    parts a batch had.

    Returns:
        the term; of sharded parameters, what this process's shards add to it.
    """
    terms = []
    for name, parameter in parameters.items():
        away = parameter.detach() - start[name]
        parameter.grad = mu * away if parameter.grad is None else parameter.grad.add_(away, alpha=mu)
        terms.append(away.square().sum())
    return mu / 2 * torch.stack(terms).sum()


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
    placement: Placement = SINGLE,
    wrapped: Any = None,
    correction: Mapping[str, Tensor] | None = None,
) -> dict:
    """Train the module's exchanged and kept parameters in place on one client's clips.

    All randomness comes from (seed, round, client). Processes that share a client draw the same batches, and each takes its
    part.

    Args:
        wrapped: what Fabric made of the module where several processes take the client together.
        correction: by name, added to the exchanged parameters' gradients after these were clipped (SCAFFOLD).

    Returns:
        the optimizer's state, to be kept where `LocalTraining.keep_optimizer` says so.
    """
    parameters = {**module.exchanged_parameters(), **module.kept_parameters()}
    optimizer = LocalOptimizer(parameters, local.learning_rate, local.weight_decay, placement)
    exchanged = {name: optimizer.values[name] for name in module.exchanged_parameters()}
    start = {name: value.detach().clone() for name, value in exchanged.items()} if local.proximal else {}
    if optimizer_state is not None:
        optimizer.inner.load_state_dict(optimizer_state)

    def over_shards(value: Tensor) -> Tensor:
        return fabric.all_reduce(value, reduce_op="sum") if placement.kind == "fsdp" else value  # type: ignore[return-value]

    training_step = module.training_step if wrapped is None else wrapped.training_step
    total, rank = local.steps * total_rounds, fabric.global_rank
    # A process's own dropout, where several share a batch; the first draws as a single one does.
    dropout = derive_seed(seed, "dropout", round_number, client, *([rank] if rank else []))
    with seeded(dropout), training_mode(module), means_of(module, placement):
        generator = torch_generator(seed, "batches", round_number, client)
        batches = _batches(fabric, module, clips, local, generator, placement)
        # Beside a GPU the processor has time to draw the next batch.
        drawn = batches if fabric.device.type == "cpu" else ahead(batches, 2)
        for step, parts in enumerate(drawn):
            optimizer.zero_grad()
            losses: dict[str, Tensor] = {}
            for number, part in enumerate(parts):
                with _gradients_kept_back(fabric, wrapped, number + 1 < len(parts)):
                    with fabric.autocast():
                        terms = training_step(part, step)
                    fabric.backward(terms["loss"] / len(parts))
                for name, value in terms.items():
                    share = value.detach() / len(parts)
                    losses[name] = losses[name] + share if number else share
            if placement.processes > 1:
                means = fabric.all_reduce(torch.stack([value.float() for value in losses.values()]), reduce_op="mean")
                losses = dict(zip(losses, means, strict=True))  # type: ignore[arg-type]
            optimizer.collect()
            if local.proximal:
                term = over_shards(add_proximal_gradient(exchanged, start, local.proximal)).to(fabric.device)
                losses["proximal"], losses["loss"] = term, losses["loss"] + term
            if local.gradient_clip:
                gradients = [value.grad for value in optimizer.values.values() if value.grad is not None]
                norm = over_shards(torch.nn.utils.get_total_norm(gradients).square()).sqrt()
                torch.nn.utils.clip_grads_with_norm_(optimizer.values.values(), local.gradient_clip, norm)
            for name, value in (correction or {}).items():
                own = optimizer.values[name]
                own.grad = value.to(own) if own.grad is None else own.grad + value.to(own)
            optimizer.step(local.rate_at(round_number * local.steps + step, total))
            if on_step is not None:
                on_step(step, numbers([losses])[0])
    optimizer.zero_grad()
    return optimizer.inner.state_dict()


def _batches(
    fabric: Fabric,
    module: FederatedModule,
    clips: Sequence[Prepared],
    local: LocalTraining,
    generator: torch.Generator,
    placement: Placement,
) -> Iterator[list[Prepared]]:
    """This process's parts of the batch of every step, on its device."""
    accumulate = placement.accumulate
    for _ in range(local.steps):
        batch = module.draw_batch(clips, local.batch_size, generator)
        parts = placement.processes * accumulate
        split = [batch] if parts == 1 else module.split_batch(batch, parts)
        own = split[fabric.global_rank * accumulate :][:accumulate]
        yield [{name: value.to(fabric.device) for name, value in part.items()} for part in own]


def _gradients_kept_back(fabric: Fabric, wrapped: Any, more_to_come: bool) -> AbstractContextManager:
    """Processes exchange gradients with the last part of a batch only."""
    return nullcontext() if wrapped is None else fabric.no_backward_sync(wrapped, enabled=more_to_come)


@contextmanager
def means_of(module: FederatedModule, placement: Placement, clients: int = 1) -> Iterator[None]:
    """Gradient checkpointing and a compiled network inside the block, where the placement asks for them.

    Args:
        clients: in a batch. Fewer than the placement has together make a batch of another shape, not worth compiling for.
    """
    compiled = placement.compile and clients == placement.together
    if placement.gradient_checkpointing:
        module.set_gradient_checkpointing(True)
    if compiled:
        module.set_compiled(True)
    try:
        yield
    finally:
        if placement.gradient_checkpointing:
            module.set_gradient_checkpointing(False)
        if compiled:
            module.set_compiled(False)


def numbers(terms: Sequence[Mapping[str, Tensor]]) -> list[dict[str, float]]:
    """Scalars on a device as numbers here, in one copy.

    Args:
        terms: by name, the same names in each.
    """
    values = torch.stack([value.detach() for one in terms for value in one.values()]).view(len(terms), -1).tolist()
    return [dict(zip(one, row, strict=True)) for one, row in zip(terms, values, strict=True)]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators inside the block and put the CPU's back afterwards (dropout draws from them)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def training_mode(module: nn.Module) -> Iterator[None]:
    """Dropout on inside the block and off afterwards, also when a client fails in it: others measure next."""
    module.train()
    try:
        yield
    finally:
        module.eval()
