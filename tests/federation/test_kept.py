"""FedPer: some parameters are exchanged, others stay with each client; against a plain loop."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fedtalk.callbacks.aggregation import FedAvg
from fedtalk.errors import ConfigurationError
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.settings import Privacy
from fedtalk.randomness import derive_seed, torch_generator
from fedtalk.training.local import LocalTraining

LOCAL = LocalTraining(steps=3, batch_size=2, learning_rate=0.05, gradient_clip=0.0)
ROUNDS = 3


@pytest.fixture
def personal(colours):
    """``first`` is exchanged, ``second`` is kept."""

    class Personal(colours):
        def exchanged_parameters(self) -> dict[str, nn.Parameter]:
            return {"first": self.first}

        def kept_parameters(self) -> dict[str, nn.Parameter]:
            return {"second": self.second}

    return Personal


def _plain(kind, data, clients: list[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """FedPer (Arivazhagan et al. 2019, algorithm 1) in a few lines, equal weights."""
    module = kind()
    shared, own = torch.zeros_like(module.first), {client: torch.zeros_like(module.second) for client in clients}
    for number in range(ROUNDS):
        ends = []
        for client in clients:
            with torch.no_grad():
                module.first.copy_(shared)
                module.second.copy_(own[client])
            clips = [module.prepare_clip(source.load()) for source in data.training_clips(client)]
            draws = torch_generator(0, "batches", number, client)
            optimizer = torch.optim.AdamW([module.first, module.second], lr=0.05, betas=(0.9, 0.99), weight_decay=0.0)
            torch.manual_seed(derive_seed(0, "dropout", number, client))
            module.train()
            for _ in range(LOCAL.steps):
                optimizer.zero_grad()
                sum(module.loss_terms(module.draw_batch(clips, 2, draws)).values()).backward()
                optimizer.step()
            ends.append(module.first.detach().clone())
            own[client] = module.second.detach().clone()
        shared = torch.stack(ends).mean(0)
    return shared, own


def test_it_is_fedper(run, people, personal, colour_data) -> None:
    people = {name: replace(person, clips=2) for name, person in people.items()}
    got = run(people, FedAvg(), local=LOCAL, rounds=ROUNDS, kind=personal)
    shared, own = _plain(personal, colour_data(people), list(people))
    torch.testing.assert_close(got.state["first"], shared, rtol=0, atol=1e-6)
    states = got.trainer.federate(got.module, colour_data(people)).client_states
    for client, expected in own.items():
        kept = states.load(client, ROUNDS)["kept"]["second"]
        torch.testing.assert_close(kept, expected, rtol=0, atol=1e-6)
    assert (own["anna"] - own["dora"]).abs().max() > 0.05  # or nothing personal was learned
    assert torch.equal(got.module.second, torch.zeros(3))  # nobody's is left in the module


def test_a_resumed_run_goes_on_with_what_clients_kept(run, people, personal) -> None:
    whole = run(people, FedAvg(), local=LOCAL, rounds=3, kind=personal, folder="whole")
    run(people, FedAvg(), local=LOCAL, rounds=2, kind=personal, folder="parts")
    parts = run(people, FedAvg(), local=LOCAL, rounds=3, kind=personal, folder="parts", ckpt_path="last")
    assert torch.equal(whole.state["first"], parts.state["first"])


def test_where_kept_parameters_would_travel_they_are_refused(run, people, personal) -> None:
    with pytest.raises(ConfigurationError, match=r"trainer\.privacy: parameters that clients keep"):
        run(people, FedAvg(), kind=personal, privacy=Privacy(assumptions=Assumptions(0.0, 0.3)))
