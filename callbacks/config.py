"""The config of a run, beside its results: `fedtalk fit --config RUN/config.yaml` runs it again, `fedtalk test` measures it."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from fedtalk.storage import atomic_path

OF_THE_COMMAND = ("dry_run", "overwrite")
"""Options of `fedtalk fit` that say nothing of the run; nobody who names its config again means them."""


class SaveRunConfig(SaveConfigCallback):
    """Writes ``config.yaml`` into the run's folder when training starts: not before all that could refuse it has been asked, or
    the config of a run that was refused would take the place of the run's own.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Nothing yet."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        config = self.config.clone()
        for name in OF_THE_COMMAND:
            config.pop(name, None)
        text = self.parser.dump(config, skip_none=False)
        with atomic_path(f"{trainer.default_root_dir}/config.yaml") as temporary:
            temporary.write_text(text, encoding="utf-8")
