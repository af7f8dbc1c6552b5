"""Local training of several clients in one batch: what of the network is frozen runs once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from fedtalk.randomness import derive_seed, torch_generator
from fedtalk.training.local import LocalTraining, means_of, numbers, seeded, training_mode
from fedtalk.training.module import FederatedModule, Prepared
from fedtalk.training.optimizer import BETAS
from fedtalk.training.placement import SINGLE, Placement


def train_together(
    fabric: Fabric,
    module: FederatedModule,
    clips: Mapping[str, Sequence[Prepared]],
    local: LocalTraining,
    seed: int,
    round_number: int,
    total_rounds: int,
    on_step: Callable[[str, int, dict[str, float]], None] | None = None,
    placement: Placement = SINGLE,
) -> dict[str, dict[str, Tensor]]:
    """Train K clients at once, each on its own clips and with its own copy of the exchanged parameters.

    Batches, learning rates, limits of gradients and the proximal term are each client's own, as in `train_locally`, and so is
    the result: to 1e-13 of an update's norm in 64-bit numbers. In 32-bit numbers AdamW amplifies rounding where a gradient is
    itself of rounding size, as between two numbers of threads (scripts/check_together.py). Dropout is the exception: its draws
    are not those of training apart (the talker has none).

    Args:
        fabric: a single process.
        module: one with `FederatedModule.together`; its own parameters stay as they are.
        clips: prepared clips by client.
        local: without ``keep_optimizer``.
        seed: of the run.
        round_number: of the run.
        total_rounds: of the run, for schedules of the learning rate.
        on_step: after a client's step, with its terms.
        placement: that all of them have.

    Returns:
        the trained parameters by client, (K of) the shapes of the exchanged parameters.
    """
    names, parameters = list(clips), module.exchanged_parameters()
    stacked = {
        name: nn.Parameter(value.detach().expand(len(names), *value.shape).clone())
        for name, value in parameters.items()
    }
    start = {name: value.detach() for name, value in parameters.items()}
    optimizer = torch.optim.AdamW(
        stacked.values(), lr=local.learning_rate, weight_decay=local.weight_decay, betas=BETAS, foreach=True
    )
    generators = [torch_generator(seed, "batches", round_number, name) for name in names]
    dropout = derive_seed(seed, "dropout", round_number, *names)
    with (
        seeded(dropout),
        training_mode(module),
        means_of(module, placement, len(names)),
        module.together(stacked),
    ):
        for step in range(local.steps):
            drawn = [
                module.draw_batch(clips[name], local.batch_size, g) for name, g in zip(names, generators, strict=True)
            ]
            batch = {key: torch.cat([one[key] for one in drawn]).to(fabric.device) for key in drawn[0]}
            optimizer.zero_grad()
            with fabric.autocast():
                losses = module.training_steps(batch, len(names))
            fabric.backward(torch.stack([terms["loss"] for terms in losses]).sum())
            gradients = {name: value.grad for name, value in stacked.items() if value.grad is not None}
            if local.proximal:
                for index, term in enumerate(_add_proximal_gradients(stacked, start, local.proximal)):
                    losses[index]["proximal"], losses[index]["loss"] = term, losses[index]["loss"] + term
                gradients = {name: value.grad for name, value in stacked.items() if value.grad is not None}
            if local.gradient_clip:
                _limit(list(gradients.values()), local.gradient_clip)
            for group in optimizer.param_groups:
                group["lr"] = local.rate_at(round_number * local.steps + step, local.steps * total_rounds)
            optimizer.step()
            if on_step is not None:
                for name, terms in zip(names, numbers(losses), strict=True):
                    on_step(name, step, terms)
    return {
        client: {name: value.detach()[index] for name, value in stacked.items()} for index, client in enumerate(names)
    }


@torch.no_grad()
def _add_proximal_gradients(stacked: Mapping[str, nn.Parameter], start: Mapping[str, Tensor], mu: float) -> Tensor:
    """As `add_proximal_gradient`, a client at a time along the first axis; returns the terms, (K,)."""
    terms = []
    for name, value in stacked.items():
        away = value.detach() - start[name]
        value.grad = mu * away if value.grad is None else value.grad.add_(away, alpha=mu)
        terms.append(away.square().flatten(1).sum(1))
    return mu / 2 * torch.stack(terms).sum(0)


def _limit(gradients: Sequence[Tensor], most: float) -> None:
    """Scale each client's gradient, along the first axis, to an L2 norm of at most ``most``."""
    norms_K = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients]).norm(dim=0)
    factors_K = (most / (norms_K + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors_K.view(-1, *(1,) * (gradient.dim() - 1)))
