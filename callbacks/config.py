"""The config of a run, beside its results: `fedtalk fit --config RUN/config.yaml` runs it again."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from fedtalk.storage import atomic_path


class SaveRunConfig(SaveConfigCallback):
    """Writes ``config.yaml`` into the run's folder when training starts: not before all that could refuse it has been asked, or
    the config of a run that was refused would take the place of the run's own.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Nothing yet."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        text = self.parser.dump(self.config, skip_none=False)
        with atomic_path(f"{trainer.default_root_dir}/config.yaml") as temporary:
            temporary.write_text(text, encoding="utf-8")
