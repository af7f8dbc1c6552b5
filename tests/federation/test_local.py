"""Local training against a bare PyTorch loop, FedProx against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

from fedtalk.errors import ConfigurationError
from fedtalk.randomness import torch_generator
from fedtalk.training.local import LocalTraining, add_proximal_gradient, train_locally


def _train(module, local: LocalTraining, round_number: int = 0, total: int = 4, state: dict | None = None) -> dict:
    clips = [{"colour": torch.tensor([0.8, -0.4, 0.3]), "signs": torch.zeros(3)}]
    return train_locally(
        Fabric(accelerator="cpu", devices=1), module, clips, local, 7, "anna", round_number, total, state
    )


def test_a_bare_adamw_loop_gives_the_same(colours) -> None:
    local = LocalTraining(steps=4, batch_size=3, learning_rate=0.1, weight_decay=0.05, gradient_clip=0.2)
    module = colours()
    module.loss_terms = lambda batch: {"pull": (module.second - batch["colour"]).square().mean()}  # no dropout
    _train(module, local)

    second = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.AdamW([second], lr=0.1, weight_decay=0.05, betas=(0.9, 0.99))
    generator = torch_generator(7, "batches", 0, "anna")
    for _ in range(4):
        torch.randint(1, (3,), generator=generator)
        colour = torch.tensor([0.8, -0.4, 0.3]) + 0.1 * torch.randn(3, 3, generator=generator)
        optimizer.zero_grad()
        (second - colour).square().mean().backward()
        second.grad *= min(1.0, 0.2 / (float(second.grad.norm()) + 1e-6))
        optimizer.step()
    torch.testing.assert_close(module.second.detach(), second.detach(), rtol=1e-5, atol=1e-6)


def test_the_callers_random_state_is_put_back(colours) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    _train(colours(), LocalTraining(steps=2))  # its dropout draws from the global generator
    assert torch.equal(torch.rand(2), expected)


def test_dropout_does_not_depend_on_the_global_generator(colours) -> None:
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        module = colours()
        _train(module, LocalTraining(steps=2))
        results.append(module.first.detach().clone())
    assert torch.equal(*results)


def test_proximal_term_has_the_gradient_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    values = {"a": torch.randn(2, 3, generator=generator).double(), "b": torch.randn(4, generator=generator).double()}
    start = {name: value + torch.randn(value.shape, generator=generator) for name, value in values.items()}
    parameters = {name: torch.nn.Parameter(value.clone()) for name, value in values.items()}
    value = add_proximal_gradient(parameters, start, 0.3)
    assert float(value) == pytest.approx(0.15 * sum(float((values[n] - start[n]).square().sum()) for n in values))
    step = 1e-5
    for name, parameter in parameters.items():
        for index in np.ndindex(*parameter.shape):
            ends = []
            for sign in (1, -1):
                moved = {key: value.clone() for key, value in values.items()}
                moved[name][index] += sign * step
                # The definition, mu / 2 * ||theta - theta_global||^2, with Python's own sum.
                differences = torch.cat([(moved[key] - start[key]).ravel() for key in moved])
                ends.append(0.3 / 2 * sum(float(value) ** 2 for value in differences))
            assert parameter.grad is not None
            assert float(parameter.grad[index]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-6)


def test_more_mu_stays_nearer_to_the_start(colours) -> None:
    distances = []
    for mu in (0.0, 1.0, 100.0):
        module = colours()
        _train(module, LocalTraining(steps=30, learning_rate=0.05, proximal=mu))
        distances.append(float(torch.cat([module.first.ravel(), module.second]).detach().norm()))
    assert distances[0] > 1.3 * distances[1] > 1.3 * 1.3 * distances[2] > 0


def test_mu_pulls_to_the_global_state_and_not_to_zero(colours) -> None:
    module = colours()
    with torch.no_grad():
        module.second.fill_(5.0)
    _train(module, LocalTraining(steps=30, learning_rate=0.05, proximal=1000.0))
    assert (module.second - 5.0).abs().max() < 0.1


def test_learning_rate_warms_up_and_follows_the_cosine_over_all_rounds() -> None:
    local = LocalTraining(learning_rate=2.0, schedule="cosine", warmup_steps=4)
    got = [local.rate_at(step, 20) for step in range(20)]
    expected = [2 * min(1, (step + 1) / 4) * (1 + np.cos(np.pi * step / 20)) / 2 for step in range(20)]
    np.testing.assert_allclose(got, expected)
    assert LocalTraining(learning_rate=2.0).rate_at(19, 20) == 2.0


def test_rounds_go_on_along_the_schedule(colours) -> None:
    """A late round of a cosine moves less than an early one."""
    moved = []
    for round_number in (0, 3):
        module = colours()
        _train(module, LocalTraining(steps=3, learning_rate=0.05, schedule="cosine"), round_number)
        moved.append(float(module.second.detach().norm()))
    assert moved[1] < 0.5 * moved[0]


def test_a_kept_optimizer_goes_on_with_its_moments(colours) -> None:
    local = LocalTraining(steps=3, learning_rate=0.05)
    module = colours()
    state = _train(module, local)
    halfway = {name: value.detach().clone() for name, value in module.exchanged_parameters().items()}
    _train(module, local, 1, state=state)
    fresh = colours()
    with torch.no_grad():
        for name, parameter in fresh.exchanged_parameters().items():
            parameter.copy_(halfway[name])
    _train(fresh, local, 1)
    assert int(state["state"][0]["step"]) >= 3
    assert not torch.equal(module.second, fresh.second)


def test_a_fresh_client_leaves_training_mode(colours) -> None:
    module = colours()
    _train(module, LocalTraining(steps=1))
    assert not module.training


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 0), ("batch_size", 0), ("learning_rate", 0.0), ("proximal", -0.1), ("gradient_clip", -1.0),
        ("weight_decay", -1.0), ("warmup_steps", -1), ("schedule", "linear"), ("learning_rate", float("nan")),
        ("deadline_seconds", 0.0), ("deadline_seconds", -1.0),
    ],
)  # fmt: skip
def test_wrong_settings_name_their_key(key: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"local\.{key}: expected .*got"):
        LocalTraining(**{key: value})
