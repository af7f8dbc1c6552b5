"""Videos in TensorBoard: the truth above, what the model makes of it below, as moving pictures."""

from __future__ import annotations

import io
import logging

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary

from fedtalk.data.clip import FRAME_RATE
from fedtalk.errors import ConfigurationError, FedTalkError
from fedtalk.federation.module import FederatedModule
from fedtalk.federation.trainer import FederatedTrainer, RoundCallback, RoundOutcome
from fedtalk.talker.module import Talker

log = logging.getLogger("fedtalk")


class VideoMonitor(RoundCallback):
    """Shows held-out windows of the first clients as animated images."""

    shows_clients = True

    def __init__(self, every: int = 2, clients: int = 3, frames: int = 24) -> None:
        """
        Args:
            every: rounds between videos.
            clients: how many clients are shown.
            frames: length.
        """
        if min(every, clients, frames) < 1:
            raise ConfigurationError("callback VideoMonitor: every, clients and frames must be at least 1")
        self.every, self.clients, self.frames = every, clients, frames

    def on_round_end(self, trainer: FederatedTrainer, module: FederatedModule, outcome: RoundOutcome) -> None:
        if not isinstance(module, Talker) or (
            trainer.round_number % self.every and trainer.round_number != trainer.rounds
        ):
            return
        columns = []
        for client in trainer.data.clients[: self.clients]:
            try:
                clip = trainer.data.held_out_clips(client)[0].load().window(0, self.frames)
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
