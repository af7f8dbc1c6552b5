"""Videos in TensorBoard: the truth above, what the model makes of it below, as moving pictures."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary

from fedtalk.callbacks.base import RoundCallback, RoundOutcome, RoundTrainer
from fedtalk.checks import check_least
from fedtalk.data.clip import FRAME_RATE
from fedtalk.errors import FedTalkError
from fedtalk.talker.module import Talker
from fedtalk.training.module import FederatedModule

log = logging.getLogger("fedtalk")


@dataclass
class Videos:
    """Which videos are shown."""

    every: int | None = None
    """Rounds between videos; those of `FederatedTrainer.validate_every` by default."""
    clients: int = 3
    """How many clients are shown."""
    frames: int = 24
    """Length."""

    def __post_init__(self) -> None:
        check_least("trainer.videos", 1, every=self.every, clients=self.clients, frames=self.frames)


class VideoMonitor(RoundCallback):
    """Shows held-out windows of the first clients as animated images."""

    shows_clients = True

    def __init__(self, videos: Videos | None = None) -> None:
        """
        Args:
            videos: which.
        """
        self.videos = videos or Videos()

    def on_round_end(self, trainer: RoundTrainer, module: FederatedModule, outcome: RoundOutcome) -> None:
        every = self.videos.every or trainer.validate_every
        due = every and (trainer.round_number % every == 0 or trainer.round_number == trainer.rounds)
        if not due or not isinstance(module, Talker):
            return
        columns = []
        for client in trainer.data.clients[: self.videos.clients]:
            try:
                clip = trainer.data.held_out_clips(client)[0].load().window(0, self.videos.frames)
                reference = trainer.data.training_clips(client)[0].load().reference(0)
            except FedTalkError as error:  # as in a round: a client's trouble is its own
                log.warning("no video of %s: %s", client, error)
                continue
            made = np.stack([frame.numpy() for frame in module.dub(clip, reference)])
            columns.append(np.concatenate([clip.frames, made], axis=1))
        if not columns:
            return
        frames = np.concatenate(columns, axis=2).repeat(2, 1).repeat(2, 2)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                add_animation(logger, "held_out/truth_above_generated_below", frames, trainer.round_number)


def add_animation(logger: TensorBoardLogger, tag: str, frames: np.ndarray, step: int) -> None:
    """Log (F, H, W, 3) uint8 frames as an animated GIF, which TensorBoard's image page plays."""
    pictures = [Image.fromarray(frame) for frame in frames]
    stream = io.BytesIO()
    pictures[0].save(
        stream, "GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / FRAME_RATE), loop=0
    )
    image = Summary.Image(
        height=frames.shape[1], width=frames.shape[2], colorspace=3, encoded_image_string=stream.getvalue()
    )
    summary = Summary(value=[Summary.Value(tag=tag, image=image)])
    logger.experiment._get_file_writer().add_summary(summary, step)
    logger.experiment.flush()
