"""A fit on a cluster of several nodes on this machine: ``python cluster_fit.py FOLDER``; what came of it is FOLDER/told.json.

The node of one of two workers is killed within round 1; another node takes its place a step later. One client is trained
by two processes, for which no node alone has room, so that it can't do without.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import worker_parts as parts
from ray.cluster_utils import Cluster

from fedtalk.callbacks.aggregation import ISFA
from fedtalk.callbacks.base import RoundCallback
from fedtalk.training.placement import Placement

PEOPLE = {f"client-{n}": parts.Person((0.2 * n, 0.5, -0.3), does="go on") for n in range(3)}
PEOPLE["ddp"] = parts.Person((0.9, 0.5, -0.3))


class Trouble(RoundCallback):
    """Kills a node and adds another one."""

    def __init__(self, cluster: Cluster, node: object) -> None:
        self.cluster, self.node = cluster, node
        self.replaced = False
        self.outcomes: list[dict] = []
        self.ready: list[int] = []

    def on_local_step(self, trainer, client, step, steps, losses) -> None:
        if trainer.round_number != 1 or client == "ddp":
            return
        if self.node is not None:
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.node = None
        elif not self.replaced:
            self.cluster.add_node(num_cpus=2)
            self.replaced = True

    def on_round_end(self, trainer, module, outcome) -> None:
        self.outcomes.append(outcome.failures)
        if outcome.round_number == 1:
            end = time.monotonic() + 120
            while not all(team.ready for team in trainer.engine._all) and time.monotonic() < end:
                list(trainer.engine._hear())
        self.ready.append(sum(team.ready for team in trainer.engine._all))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    os.environ["RAY_ADDRESS"] = cluster.address
    trouble = Trouble(cluster, nodes[1])
    try:
        trainer = parts.trainer(
            folder, [ISFA(gamma=1.0), trouble], rounds=3, workers=2,
            default_placement=Placement(processors=1), placements={"ddp": Placement("ddp", 2, processors=1)},
        )  # fmt: skip
        trainer.fit(parts.Pull(), parts.People(PEOPLE))
    finally:
        cluster.shutdown()
    (folder / "told.json").write_text(json.dumps({"failures": trouble.outcomes, "ready": trouble.ready}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
