"""Flower's simulation, with two clients at a time."""

from __future__ import annotations

import os

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["PYTHONPATH"] = os.pathsep.join(
    [os.path.dirname(os.path.abspath(__file__)), os.environ.get("PYTHONPATH", "")]
)

import job
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

rounds = job.Rounds()
client_app, server_app = ClientApp(), ServerApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    net = job.Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    job.train(net, int(context.node_config["partition-id"]))
    content = {"arrays": ArrayRecord(net.state_dict()), "metrics": MetricRecord({"num-examples": job.EXAMPLES})}
    return Message(RecordDict(content), reply_to=message)


@server_app.main()
def serve(grid: Grid, context: Context) -> None:
    def told(number: int, arrays: ArrayRecord) -> None:
        if number:
            rounds.over()

    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=job.CLIENTS)
    result = strategy.start(grid, ArrayRecord(job.Net().state_dict()), num_rounds=job.ROUNDS, evaluate_fn=told)
    rounds.tell(result.arrays.to_torch_state_dict())


if __name__ == "__main__":
    run_simulation(
        server_app, client_app, num_supernodes=job.CLIENTS,
        backend_config={"init_args": {"num_cpus": 2}, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )  # fmt: skip
