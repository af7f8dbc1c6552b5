"""SCAFFOLD on clients whose losses are parabolas of other widths: where it ends, where FedAvg ends, both in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fedtalk.callbacks.aggregation import FedAvg
from fedtalk.callbacks.baselines import Scaffold
from fedtalk.errors import ConfigurationError
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.settings import Privacy
from fedtalk.training.local import LocalTraining
from fedtalk.training.module import Prepared
from fedtalk.training.placement import Placement

RATE, STEPS = 0.2, 10
LOCAL = LocalTraining(steps=STEPS, batch_size=1, learning_rate=RATE, gradient_clip=0.0)
SGD = Placement(optimizer="sgd")


@pytest.fixture
def parabolas(colours):
    """``quality ||theta - colour||^2 / 2``: a client's quality is its curvature. Nothing is drawn."""

    class Parabolas(colours):
        def draw_batch(self, clips: Sequence[Prepared], size: int, generator: torch.Generator) -> Prepared:
            return {name: clips[0][name] for name in ("colour", "signs")}

        def loss_terms(self, batch: Prepared) -> dict[str, Tensor]:
            off = (self.first - batch["colour"]).square().sum() + (self.second - batch["colour"]).square().sum()
            return {"parabola": batch["signs"][3] * off / 2}

    return Parabolas


def _optimum(people) -> Tensor:
    """Of the mean of all losses: the mean of the colours, weighted by curvature."""
    colours = torch.tensor([person.colour for person in people.values()])
    curvatures = torch.tensor([person.quality for person in people.values()])[:, None]
    return (curvatures * colours).sum(0) / curvatures.sum()


def _fedavg(people) -> Tensor:
    """Where FedAvg stays: weighted by how far a client goes in its steps, ``1 - (1 - rate curvature)^steps``."""
    colours = torch.tensor([person.colour for person in people.values()])
    curvatures = torch.tensor([person.quality for person in people.values()])[:, None]
    going = 1 - (1 - RATE * curvatures) ** STEPS
    return (going * colours).sum(0) / going.sum()


def test_it_ends_at_the_optimum_of_all_where_fedavg_does_not(run, people, parabolas) -> None:
    for person in people.values():
        person.clips = 2  # one weight for all
    settings = {"local": LOCAL, "rounds": 40, "kind": parabolas, "default_placement": SGD}
    federated = run(people, Scaffold(), folder="scaffold", **settings)
    averaged = run(people, FedAvg(), folder="fedavg", **settings)
    for name in ("first", "second"):
        expected = _optimum(people).expand_as(federated.state[name])
        torch.testing.assert_close(federated.state[name], expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(averaged.state[name], _fedavg(people).expand_as(expected), rtol=0, atol=1e-4)
    assert (_optimum(people) - _fedavg(people)).abs().max() > 0.05


def test_it_does_so_with_half_of_the_clients_in_a_round(run, people, parabolas) -> None:
    done = run(
        people, Scaffold(), local=LOCAL, rounds=100, kind=parabolas, default_placement=SGD, cohort=PoissonCohort(0.5)
    )
    torch.testing.assert_close(done.state["second"], _optimum(people), rtol=0, atol=1e-3)
    server = done.trainer.fit_rounds.server
    states = done.trainer.federate(done.module, done.trainer.data).client_states
    own = torch.stack([states.load(client, 1000)["control"]["second"] for client in people])
    torch.testing.assert_close(server.controls["control/second"], own.mean(0), rtol=0, atol=1e-4)
    assert own.abs().max() > 0.05  # each by itself is not 0 at the optimum of all


def test_a_resumed_run_goes_on_with_all_control_variates(run, people, parabolas) -> None:
    settings = {"local": LOCAL, "kind": parabolas, "default_placement": SGD}
    whole = run(people, Scaffold(), rounds=4, folder="whole", **settings)
    run(people, Scaffold(), rounds=2, folder="parts", **settings)
    parts = run(people, Scaffold(), rounds=4, folder="parts", ckpt_path="last", **settings)
    assert torch.equal(whole.state["first"], parts.state["first"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, r"default_placement: control variates of Scaffold .* got single and adamw"),
        ({"default_placement": SGD, "minimum_clients": 2}, "expected minimum_clients: 1"),
        (
            {"default_placement": SGD, "privacy": Privacy(assumptions=Assumptions(0.0, 0.3))},
            "Scaffold sends clients' gradients .* expected no privacy",
        ),
        ({"default_placement": SGD, "workers": 2}, "stay in the process of the run: expected workers: 1"),
    ],
)
def test_where_it_would_be_wrong_it_is_refused(run, people, settings: dict, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        run(people, Scaffold(), **settings)
