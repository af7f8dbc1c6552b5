"""fedtalk: ``python fedtalk_side.py WORKERS``; 1 is in process, more are Ray's."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Sequence
from functools import partial

import job
import numpy as np
import torch
from torch import Tensor, nn

from fedtalk.callbacks.base import RoundCallback
from fedtalk.data.clip import SAMPLES_PER_FRAME, Clip
from fedtalk.data.source import ClipData, ClipSource
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.training.local import LocalTraining
from fedtalk.training.module import FederatedModule, Prepared, copy_state


class Job(FederatedModule):
    """The job's network as a module of fedtalk's."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = job.Net()

    def exchanged_parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.whole.named_parameters())

    def cache_key(self) -> str:
        return "job"

    def prepare_clip(self, clip: Clip) -> Prepared:
        x, y = job.examples(clip.info["client"])
        return {"x": x, "y": y}

    def draw_batch(self, clips: Sequence[Prepared], size: int, generator: torch.Generator) -> Prepared:
        return clips[0]

    def loss_terms(self, batch: Prepared) -> dict[str, Tensor]:
        return {"loss": nn.functional.cross_entropy(self.whole(batch["x"]), batch["y"])}

    def training_step(self, batch: Prepared, batch_idx: int = 0) -> dict[str, Tensor]:
        return self.loss_terms(batch)


def _open(client: int) -> Clip:
    return Clip(
        np.zeros((1, 2, 2, 3), np.uint8), np.zeros(SAMPLES_PER_FRAME, np.float32), np.zeros((1, 2, 2), np.float32),
        np.zeros((1, 2), np.float32), None, {"client": client},
    )  # fmt: skip


class Data(ClipData):
    """A clip a client, which stands for its examples."""

    @property
    def clients(self) -> list[str]:
        return [str(number) for number in range(job.CLIENTS)]

    def training_clips(self, client: str) -> list[ClipSource]:
        return [ClipSource(client, partial(_open, int(client)))]

    held_out_clips = training_clips


class Told(RoundCallback):
    """Hears of rounds."""

    def __init__(self, rounds: job.Rounds) -> None:
        self.rounds = rounds

    def on_round_end(self, trainer: FederatedTrainer, module: object, outcome: object) -> None:
        self.rounds.over()


def main(workers: int) -> None:
    for chatty in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    rounds, module = job.Rounds(), Job()
    with tempfile.TemporaryDirectory() as folder:
        FederatedTrainer(
            rounds=job.ROUNDS, cohort=PoissonCohort(1.0), validate_every=0, accelerator="cpu", threads=1, workers=workers,
            local=LocalTraining(steps=job.STEPS, batch_size=1, learning_rate=job.LEARNING_RATE, gradient_clip=0.0),
            callbacks=[Told(rounds)], switch_off=["progress", "videos", "adapters"],
            default_root_dir=f"{folder}/run", cache_dir=f"{folder}/cache",
        ).fit(module, Data())  # fmt: skip
    rounds.tell(copy_state(module.exchanged_parameters()))


if __name__ == "__main__":
    main(int(sys.argv[1]))
