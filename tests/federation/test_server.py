"""The server's optimizers against their published recurrences, written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedtalk.errors import ConfigurationError
from fedtalk.federation.server import Server, ServerOptimizer

START = {"b": torch.tensor([0.5, -0.25, 0.125]), "a": torch.tensor([[1.0], [2.0]])}
FLAT = np.array([0.5, -0.25, 0.125, 1.0, 2.0])
UPDATES = np.random.default_rng(0).normal(0, 0.3, (5, 5))
WEIGHTS = [0.3, 1.7, 0.9, 2.2, 0.4]


def _states(optimizer: ServerOptimizer) -> list[np.ndarray]:
    """The state after each round whose mean updates are `UPDATES`."""
    server, states = Server(START, optimizer), []
    for update, weight in zip(UPDATES, WEIGHTS, strict=True):
        norm = server.step(np.append(update * weight, weight))
        assert norm == pytest.approx(np.linalg.norm(update))
        states.append(np.concatenate([value.numpy().ravel() for value in server.state.values()]))
    return states


def _check(optimizer: ServerOptimizer, expected: list[np.ndarray]) -> None:
    for got, wanted in zip(_states(optimizer), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_sgd_adds_the_mean_update(rate: float) -> None:
    _check(ServerOptimizer("sgd", rate), list(FLAT + rate * np.cumsum(UPDATES, 0)))


def test_momentum() -> None:
    """m <- 0.7 m + delta, x <- x + 0.5 m (FedAvgM, Hsu et al. 2019)."""
    x, m, expected = FLAT.copy(), np.zeros(5), []
    for update in UPDATES:
        m = 0.7 * m + update
        x = x + 0.5 * m
        expected.append(x)
    _check(ServerOptimizer("momentum", 0.5, momentum=0.7), expected)


def test_adam() -> None:
    """Kingma and Ba 2015, algorithm 1, on the pseudo-gradient."""
    beta1, beta2, epsilon, rate = 0.9, 0.99, 1e-3, 0.01
    x, m, v, expected = FLAT.copy(), np.zeros(5), np.zeros(5), []
    for step, update in enumerate(UPDATES, 1):
        m = beta1 * m + (1 - beta1) * update
        v = beta2 * v + (1 - beta2) * update**2
        x = x + rate * (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + epsilon)
        expected.append(x)
    _check(ServerOptimizer("adam", rate, betas=(beta1, beta2), epsilon=epsilon), expected)


def test_yogi() -> None:
    """Zaheer et al. 2018, algorithm 2: the second moment moves by addition, in either direction."""
    beta1, beta2, epsilon, rate = 0.8, 0.9, 1e-2, 0.05
    x, m, v, expected = FLAT.copy(), np.zeros(5), np.full(5, 1e-6), []
    for update in UPDATES:
        square = update**2
        m = beta1 * m + (1 - beta1) * update
        v = v - (1 - beta2) * np.where(v > square, 1.0, -1.0) * square
        x = x + rate * m / (np.sqrt(v) + epsilon)
        expected.append(x)
    _check(ServerOptimizer("yogi", rate, betas=(beta1, beta2), epsilon=epsilon), expected)


@pytest.mark.parametrize("name", ["momentum", "adam", "yogi"])
def test_a_restored_server_goes_on_as_if_it_had_never_stopped(name: str) -> None:
    optimizer = ServerOptimizer(name, 0.1)
    through, first = Server(START, optimizer), Server(START, optimizer)
    for update in UPDATES[:3]:
        through.step(np.append(update, 1.0))
        first.step(np.append(update, 1.0))
    second = Server(START, optimizer)
    second.load_state_dict(first.state_dict())
    for update in UPDATES[3:]:
        through.step(np.append(update, 1.0))
        second.step(np.append(update, 1.0))
    for key in START:
        assert torch.equal(through.state[key], second.state[key])


def test_clients_without_any_weight_change_nothing() -> None:
    server = Server(START, ServerOptimizer("adam", 0.1))
    assert server.step(np.append(UPDATES[0], 0.0)) == 0.0
    assert all(torch.equal(server.state[key], START[key]) for key in START)


def test_the_callers_state_is_not_touched() -> None:
    start = {key: value.clone() for key, value in START.items()}
    Server(start, ServerOptimizer()).step(np.append(UPDATES[0], 1.0))
    assert all(torch.equal(start[key], START[key]) for key in START)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"name": "sdg"}, r"server_optimizer\.name.*'sdg'"), ({"learning_rate": 0.0}, r"server_optimizer\.learning_rate")],
)
def test_wrong_settings_name_their_key(settings: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ServerOptimizer(**settings)
