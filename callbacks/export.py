"""Writes what a run made as a folder that other runs can load."""

from __future__ import annotations

from fedtalk.callbacks.base import RoundCallback, RoundTrainer
from fedtalk.federation.client import ClientHalf
from fedtalk.run_folder import check_chosen
from fedtalk.training.module import FederatedModule


class Export(RoundCallback):
    """Calls the module's ``export`` into the run's folder when training ends, with held-out clips of the first client.

    Not with privacy: what a module exports may hold statistics of these clips, as the codec's does.
    """

    shows_clients = True

    def __init__(self, folder: str = "backbone") -> None:
        """
        Args:
            folder: name inside the run's folder.
        """
        check_chosen("export.folder", folder)
        self.folder = folder

    def on_fit_rounds_end(self, trainer: RoundTrainer, module: FederatedModule) -> None:
        clips = ClientHalf(trainer.federate(module, trainer.data)).prepared(trainer.data.clients[0], held_out=True)
        module.export(trainer.run_dir / self.folder, clips)
