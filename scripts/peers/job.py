"""The federated job that every side of `bench_peers.py` does: all clients in every round, each with AdamW on all of its examples.

One batch holds everything, so no order is drawn, and the sides must come to the same model.
"""

from __future__ import annotations

import json
import os
import sys
import time

import torch
from torch import Tensor, nn

CLIENTS, STEPS, EXAMPLES, FEATURES, WIDTH, CLASSES = 8, 10, 64, 256, 512, 10
LEARNING_RATE, BETAS = 1e-3, (0.9, 0.99)
ROUNDS = int(os.environ.get("PEERS_ROUNDS", "10"))


class Net(nn.Module):
    """136,714 parameters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def examples(client: int) -> tuple[Tensor, Tensor]:
    """A client's inputs, (64, 256), and labels, (64,)."""
    generator = torch.Generator().manual_seed(client)
    x = torch.randn(EXAMPLES, FEATURES, generator=generator)
    return x, (x[:, :CLASSES] + 0.1 * client).argmax(1)


def train(net: Net, client: int) -> None:
    """The local steps, for sides that leave them to their user."""
    x, y = examples(client)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=0.0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()


class Rounds:
    """When rounds ended; printed at the end, with the loss over all clients that the model came to."""

    def __init__(self) -> None:
        self.instants: list[float] = []

    def over(self) -> None:
        self.instants.append(time.time())

    def tell(self, state: dict[str, Tensor]) -> None:
        net = Net()
        net.load_state_dict(state)
        with torch.no_grad():
            losses = [nn.functional.cross_entropy(net(x), y) for x, y in map(examples, range(CLIENTS))]
        print(
            "RESULT " + json.dumps({"instants": self.instants, "loss": float(torch.stack(losses).mean())}), flush=True
        )
        sys.stdout.flush()
