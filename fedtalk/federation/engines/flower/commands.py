"""`fedtalk flower keys | server | client`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, auto_cli
from lightning.pytorch.cli import LightningArgumentParser

from fedtalk.commands.training import CommandLine
from fedtalk.data.source import ClipData
from fedtalk.errors import ConfigurationError
from fedtalk.federation.engines.flower import require_flower
from fedtalk.federation.engines.flower.keys import write_keys
from fedtalk.federation.engines.flower.parties import serve_clients, serve_rounds
from fedtalk.federation.engines.flower.roster import SiteClients
from fedtalk.federation.engines.flower.settings import ClientSettings, ServerSettings
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.training.module import FederatedModule

log = logging.getLogger("fedtalk")

COMMANDS = ("keys", "server", "client")

HELP = """fedtalk flower: one federation across organisations, over Flower (docs/deploy.md, Several organisations).

  fedtalk flower keys   FOLDER --host HOST --sites A,B,C   an authority, the server's certificate, a key pair a site
  fedtalk flower server --config ... --flower.port ...     starts a SuperLink and runs the rounds; has no clips
  fedtalk flower client --config ... --data...root CLIPS   a site: starts a SuperNode, trains on clips that stay here

Each explains itself with --help. The config is the same everywhere, and has privacy with secure_aggregation.
"""


def flower(arguments: Sequence[str]) -> None:
    """Run one of the commands.

    Raises:
        ConfigurationError: there is no such command, or no Flower.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP)
        return
    if arguments[0] not in COMMANDS:
        raise ConfigurationError(f"unknown command {arguments[0]!r}; expected one of {', '.join(COMMANDS)}")
    if arguments[0] == "keys":
        auto_cli(keys, as_positional=True, args=list(arguments[1:]), prog="fedtalk flower keys")
        return
    require_flower()
    for chatty in ("alembic", "httpx", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if arguments[0] == "server":
        line = _CommandLine(arguments[1:], ServerSettings, SiteClients)
        serve_rounds(*line.built, line.config.get("ckpt_path"))
    else:
        line = _CommandLine(arguments[1:], ClientSettings, None)
        serve_clients(*line.built)


def keys(folder: str, host: str = "localhost", sites: str = "north,south,east") -> None:
    """Make certificates and keys to try things with; in production use your organisations' own authority and key store.

    Args:
        folder: to write; each site gets authority.crt, server.pub and its own sites/SITE.key, the server the rest and all
            .pub files.
        host: name or address by which sites reach the server; it goes into the server's certificate.
        sites: names of the sites, with commas between.
    """
    written = write_keys(Path(folder), [host], [site.strip() for site in sites.split(",")])
    print("\n".join(f"wrote {path}" for path in written) or f"{folder} holds all of them already")


class _CommandLine(CommandLine):
    """The config of `fedtalk fit`, with ``flower:`` beside it; the server builds no data module from it."""

    def __init__(self, arguments: Sequence[str], settings: type, data: type[ClipData] | None) -> None:
        self._arguments, self._settings, self._data = list(arguments), settings, data
        super().__init__(None, None)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(self._settings, "flower")
        if self._settings is ServerSettings:
            parser.add_argument(
                "--ckpt_path", type=str | None, default=None, help="'last' to go on where a run stopped"
            )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(self._arguments)

    def before_instantiate_classes(self) -> None:
        super().before_instantiate_classes()
        if self._data is not None:  # the config names folders that only sites have
            self.config.data = Namespace(
                class_path=f"{self._data.__module__}.{self._data.__qualname__}", init_args=Namespace()
            )

    @property
    def built(self) -> tuple[FederatedTrainer, FederatedModule, Any, Any]:
        """Trainer, module, data module and settings."""
        assert isinstance(self.trainer, FederatedTrainer)
        return self.trainer, self.model, self.datamodule, self.config_init.flower
