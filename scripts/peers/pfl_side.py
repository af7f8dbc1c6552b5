"""pfl-research, in one process."""

from __future__ import annotations

from functools import partial

import job
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel


class Net(job.Net):
    """With the methods that pfl asks for."""

    def loss(self, x: torch.Tensor, y: torch.Tensor, eval: bool = False) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self(x), y)

    @torch.no_grad()
    def metrics(self, x: torch.Tensor, y: torch.Tensor, eval: bool = False) -> dict:
        return {"loss": Weighted(float(self.loss(x, y)) * len(x), len(x))}


class Told(TrainingProcessCallback):
    """Hears of rounds."""

    def __init__(self, rounds: job.Rounds) -> None:
        self.rounds = rounds

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        self.rounds.over()
        return False, Metrics()


def main() -> None:
    torch.set_num_threads(1)
    rounds, net = job.Rounds(), Net()
    data = FederatedDataset(
        lambda client: Dataset(raw_data=list(job.examples(client))),
        get_user_sampler("minimize_reuse", list(range(job.CLIENTS))),
    )
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=job.ROUNDS,
            evaluation_frequency=10**6,
            train_cohort_size=job.CLIENTS,
            val_cohort_size=None,
        ),
        SimulatedBackend(training_data=data, val_data=None),
        PyTorchModel(
            net,
            partial(torch.optim.AdamW, betas=job.BETAS, weight_decay=0.0),
            torch.optim.SGD(net.parameters(), lr=1.0),
        ),
        NNTrainHyperParams(
            local_learning_rate=job.LEARNING_RATE, local_num_epochs=job.STEPS, local_batch_size=job.EXAMPLES
        ),
        callbacks=[Told(rounds)],
    )
    rounds.tell(net.state_dict())


if __name__ == "__main__":
    main()
