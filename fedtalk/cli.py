"""The command line: `fedtalk fit|validate|test|predict` (LightningCLI) and the commands around it."""

from __future__ import annotations

import sys

from lightning.pytorch.cli import LightningCLI

from fedtalk.data.source import ClipData
from fedtalk.federation.module import FederatedModule
from fedtalk.federation.trainer import FederatedTrainer


def main() -> None:
    LightningCLI(
        FederatedModule,
        ClipData,
        trainer_class=FederatedTrainer,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
    )


if __name__ == "__main__":
    sys.exit(main())
