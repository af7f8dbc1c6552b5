"""Control variates: what a client's gradients are beside everybody's (SCAFFOLD, Karimireddy et al. 2020, algorithm 1, option II).

Plain SGD steps go by ``g - c_i + c``. After K of them, from x to y_i, a client's own variate is the mean of the gradients that
it has seen, ``c_i+ = c_i - c + (x - y_i) / sum of rates``. The server's c moves by ``sum (c_i+ - c_i) / N`` over those who took
part, so that it stays the mean of all N clients' own. The differences travel in the vector of the update; no single one is seen.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fedtalk.federation.server import Server, ServerOptimizer
from fedtalk.federation.vector import unflatten

CONTROL = "control/"
"""Goes before a parameter's name in what is broadcast and sent."""


def of_everybody(start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """c by parameter, of what was broadcast."""
    return {name.removeprefix(CONTROL): value for name, value in start.items() if name.startswith(CONTROL)}


def own_control(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], own: Mapping[str, Tensor], rates: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A client's variate after its local steps.

    Args:
        start: what was broadcast.
        end: its parameters after the steps.
        own: its variate before them.
        rates: sum of the steps' learning rates.

    Returns:
        its variate c_i+, and what it sends: ``c + c_i+ - c_i`` under `CONTROL`, beside the parameters.
    """
    moved = {name: (start[name] - end[name]) / rates - value for name, value in of_everybody(start).items()}
    return (
        {name: own[name] + change for name, change in moved.items()},
        {CONTROL + name: start[CONTROL + name] + change for name, change in moved.items()},
    )


class ScaffoldServer(Server):
    """The server half with everybody's control variate."""

    def __init__(self, state: dict[str, Tensor], optimizer: ServerOptimizer, clients: int) -> None:
        """
        Args:
            state: parameters at the start; variates start at 0.
            optimizer: of the parameters.
            clients: all who are registered, N.
        """
        super().__init__(state, optimizer)
        self.controls = {CONTROL + name: torch.zeros_like(value) for name, value in state.items()}
        self._clients = clients

    @property
    def broadcast(self) -> dict[str, Tensor]:
        return {**self.state, **self.controls}

    def step(self, total: np.ndarray) -> float:
        """As `Server.step`, of (2 d + 1,): parameters, variates, and the sum of weights, which are all 1."""
        count = sum(value.numel() for value in self.state.values())
        for name, change in unflatten(total[count:-1] / self._clients, self.controls).items():
            self.controls[name] += change
        return super().step(np.append(total[:count], total[-1]))

    def state_dict(self) -> dict:
        return {**super().state_dict(), "controls": self.controls}

    def load_state_dict(self, saved: dict) -> None:
        super().load_state_dict(saved)
        for name, value in self.controls.items():
            value.copy_(saved["controls"][name])
