"""The commands of a LightningCLI over `FederatedTrainer`.

`fedtalk fit --config C`: train by federated rounds; --ckpt_path last goes on where it stopped.
`fedtalk validate --config C --ckpt_path last`: held-out metrics of a trained adapter.
`fedtalk test --config C --ckpt_path last`: the table of metrics with its controls, contact sheet, videos.
`fedtalk predict --config C --ckpt_path last`: videos of held-out clips.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from fedtalk.callbacks.config import SaveRunConfig
from fedtalk.commands.parser import TrainingParser, with_flags
from fedtalk.commands.stack import check_promises, check_stack, expand_config, named_configs
from fedtalk.data.folder_data import FolderData
from fedtalk.data.source import ClipData
from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.errors import ConfigurationError
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.talker.module import Talker
from fedtalk.training.module import FederatedModule

BY_SHORT_NAME = (FolderData, SynthTalkData, Talker)
"""What the parser knows by class name alone, beside what the trainer's module imports."""


class CommandLine(LightningCLI):
    """One seed for everything, configs that stack without losing what was promised, no optimizer of its own."""

    def __init__(self, command: str | None, arguments: Any, save_config: bool = True) -> None:
        """
        Args:
            command: of the trainer; None to build trainer, model and data only.
            arguments: of the command line, its own name included; a parsed config where there is no command.
            save_config: whether the run's folder gets the config.
        """
        self._command = command
        super().__init__(
            FederatedModule,
            ClipData,
            trainer_class=FederatedTrainer,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_callback=SaveRunConfig if save_config else None,
            parser_class=TrainingParser,
            auto_configure_optimizers=False,  # clients' and server's optimizers have keys of their own
            args=arguments,
            run=command is not None,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that is asked for; parsers of the others take as long to build."""
        return {name: skipped for name, skipped in super().subcommands().items() if name == self._command}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("seed_everything", "trainer.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_object(args) if isinstance(args, dict) else parser.parse_args(args)

    def _set_seed(self) -> None:
        """
        Raises:
            ConfigurationError: no seed was named.
        """
        seed = (self.config if self._command is None else self.config[self._command])["seed_everything"]
        if isinstance(seed, bool):
            raise ConfigurationError(
                f"seed_everything: expected a number, with which the run can be repeated and go on, got {str(seed).lower()}"
            )
        super()._set_seed()

    def _parse_ckpt_path(self) -> None:
        """Settings come from the config; Lightning would read some from the checkpoint, and trip over a damaged one."""

    def before_instantiate_classes(self) -> None:
        config = self.config if self._command is None else self.config[self._command]
        expand_config(config)
        if self._command == "fit":
            check_promises([str(path) for path in config.get("config") or []], config)


def build(config: dict[str, Any]) -> tuple[FederatedTrainer, FederatedModule, ClipData]:
    """Trainer, model and data of a config, of which nothing is run."""
    _quiet()
    line = CommandLine(None, config, save_config=False)
    assert isinstance(line.trainer, FederatedTrainer)
    return line.trainer, line.model, line.datamodule


def _quiet() -> None:
    for chatty in ("lightning.pytorch", "lightning.fabric"):  # device tables and tips; warnings stay
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _run(command: str, arguments: list[str]) -> None:
    _quiet()
    check_stack(named_configs(arguments), {"model", "data"} & {part.lstrip("-").split("=")[0] for part in arguments})
    CommandLine(command, [command, *with_flags(arguments)])


fit, validate, test, predict = (partial(_run, command) for command in ("fit", "validate", "test", "predict"))
