"""The server half: sealed updates in, a new global state out. No function here takes a single client's clear update."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedtalk.checks import check_above, check_choice
from fedtalk.errors import ConfigurationError
from fedtalk.federation.vector import unflatten

Method = Literal["sgd", "momentum", "adam", "yogi"]


class Yogi(torch.optim.Optimizer):
    """Yogi (Zaheer et al. 2018, algorithm 2): Adam whose second moment moves by addition.

    v <- v - (1 - beta2) * sign(v - g^2) * g^2
    """

    def __init__(self, params: Iterable[Tensor], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                state, gradient = self.state[parameter], parameter.grad
                if not state:
                    state["first"] = torch.zeros_like(parameter)
                    state["second"] = torch.full_like(parameter, 1e-6)
                state["first"].lerp_(gradient, 1 - beta1)
                square = gradient.square()
                state["second"].sub_((1 - beta2) * torch.sign(state["second"] - square) * square)
                parameter.sub_(group["lr"] * state["first"] / (state["second"].sqrt() + group["eps"]))


@dataclass
class ServerOptimizer:
    """What the server does with the mean update, as a gradient step on the pseudo-gradient (Reddi et al. 2021)."""

    name: Method = "sgd"
    """``sgd`` (with learning rate 1: plain averaging), ``momentum``, ``adam`` or ``yogi``."""
    learning_rate: float = 1.0
    momentum: float = 0.9
    """Of ``momentum``."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Of ``adam`` and ``yogi``."""
    epsilon: float = 1e-3
    """Of ``adam`` and ``yogi``: degree of adaptivity."""

    def __post_init__(self) -> None:
        check_choice("server_optimizer.name", self.name, Method)
        check_above("server_optimizer", 1000, learning_rate=self.learning_rate, epsilon=self.epsilon)
        if not 0 <= self.momentum < 1 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigurationError(
                f"server_optimizer: expected momentum and betas in [0, 1), got momentum {self.momentum}, betas {self.betas}"
            )

    def build(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        if self.name == "sgd":
            return torch.optim.SGD(parameters, lr=self.learning_rate)
        if self.name == "momentum":
            return torch.optim.SGD(parameters, lr=self.learning_rate, momentum=self.momentum)
        if self.name == "adam":
            return torch.optim.Adam(parameters, lr=self.learning_rate, betas=self.betas, eps=self.epsilon)
        return Yogi(parameters, lr=self.learning_rate, betas=self.betas, eps=self.epsilon)


class Server:
    """Holds the global state and its optimizer."""

    def __init__(self, state: dict[str, Tensor], optimizer: ServerOptimizer) -> None:
        self.state = {name: value.clone() for name, value in state.items()}
        self.optimizer = optimizer.build(list(self.state.values()))

    @property
    def broadcast(self) -> dict[str, Tensor]:
        """What clients are sent."""
        return self.state

    def step(self, total: np.ndarray) -> float:
        """One round: from the opened sum of ``(a_k * delta_k, a_k)`` to a new state.

        Args:
            total: (d + 1,) float64; the last coordinate is the sum of weights.

        Returns:
            L2 norm of the mean update.
        """
        weight = float(total[-1])
        if weight < 1e-6:  # nothing but clients without any weight: the adapter stays as it is
            return 0.0
        mean = unflatten(total[:-1] / weight, self.state)
        for name, parameter in self.state.items():
            parameter.grad = -mean[name]
        self.optimizer.step()
        return float(np.linalg.norm(total[:-1] / weight))

    def state_dict(self) -> dict:
        return {"state": self.state, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, saved: dict) -> None:
        with torch.no_grad():
            for name, value in self.state.items():
                value.copy_(saved["state"][name])
        self.optimizer.load_state_dict(saved["optimizer"])
