"""`fedtalk flower keys | server | client`."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, auto_cli
from lightning.pytorch.cli import LightningArgumentParser

from fedtalk.commands.training import CommandLine
from fedtalk.data.source import ClipData
from fedtalk.errors import ConfigurationError, FedTalkError
from fedtalk.federation.engines.flower import require_flower
from fedtalk.federation.engines.flower.agreement import agreement_of, check_sealed
from fedtalk.federation.engines.flower.engine import FlowerEngine, Post, gather
from fedtalk.federation.engines.flower.keys import (
    check_certificate,
    check_private_key,
    read_authority,
    read_public_key,
    write_keys,
)
from fedtalk.federation.engines.flower.processes import Child
from fedtalk.federation.engines.flower.roster import SiteClients
from fedtalk.federation.engines.flower.settings import ClientSettings, ServerSettings
from fedtalk.federation.engines.flower.site import Site
from fedtalk.federation.module import FederatedModule, copy_state
from fedtalk.federation.run_lock import run_lock
from fedtalk.federation.trainer import FederatedTrainer

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
        folder: to write; each site gets authority.crt and its own sites/SITE.key, the server the rest and all .pub files.
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


def serve_rounds(
    trainer: FederatedTrainer,
    module: FederatedModule,
    data: SiteClients,
    settings: ServerSettings,
    ckpt_path: str | None,
) -> None:
    """The server: a SuperLink as a child, the rounds of `FederatedTrainer.fit` over it, the final adapter to the sites.

    Raises:
        ConfigurationError: server and sites don't fit together.
        FedTalkError: too few sites came, or the SuperLink ended.
        Interrupted: SIGTERM or SIGINT; the same command with ``--ckpt_path last`` goes on.
    """
    from fedtalk.federation.engines.flower.grid import GridPost
    from fedtalk.federation.engines.flower.superlink import secret_file, server_app

    with run_lock(trainer.run_dir):  # before the folder's logs are begun anew; the rounds hold it
        pass
    check_sealed(trainer.privacy)
    public = site_keys(settings.sites)
    check_certificate(settings.certificate, settings.private_key)
    trainer.personal_adapters.personal = None  # they are made at the sites; here the global one alone
    authority = read_authority(settings.authority)
    with tempfile.TemporaryDirectory(prefix="fedtalk-") as private, trainer.stop_signals as stop:
        secret_path, secret = secret_file(Path(private))
        link = Child(
            "flower-superlink",
            [
                "--isolation", "process", "--superexec-auth-secret-file", str(secret_path), "--enable-supernode-auth",
                "--ssl-certfile", settings.certificate, "--ssl-keyfile", settings.private_key,
                "--ssl-ca-certfile", settings.authority, "--host", settings.host, "--port", str(settings.port),
                "--disable-runtime-dependency-installation",
            ],
            trainer.run_dir / "flower",
            {"address already in use": f"flower.port {settings.port} is taken; stop what listens there, or choose another port"},
        )  # fmt: skip
        address = f"{settings.local_name}:{settings.port}"
        with link, server_app(link, address, authority, secret, public, stop.check) as (grid, node_of):
            post = GridPost(grid, node_of)
            sites = _wait_for_sites(trainer, post, link, list(public), settings)
            agreement = agreement_of(trainer.federate(module, data))
            data.enter(gather(post, agreement, sites, settings.answer_seconds, stop.check))
            trainer.engine = engine = FlowerEngine(post, settings.training_seconds, settings.answer_seconds)
            trainer.fit(module, data, ckpt_path)
            with trainer.stop_signals:
                engine.finish(copy_state(module.exchanged_parameters()))


def serve_clients(trainer: FederatedTrainer, module: FederatedModule, data: ClipData, settings: ClientSettings) -> None:
    """A site: a SuperNode as a child, and this process behind it; personal adapters when the run has ended.

    Raises:
        ConfigurationError: the config has no secure aggregation.
        FedTalkError: the server can't be reached, or doesn't know this site's key.
        Interrupted: SIGTERM or SIGINT.
    """
    from fedtalk.federation.engines.flower.superlink import secret_file
    from fedtalk.federation.engines.flower.supernode import MOST_WAIT_SECONDS, SENDING_SECONDS, serve

    read_authority(settings.authority)
    check_private_key(settings.private_key)
    with (
        run_lock(trainer.run_dir),
        tempfile.TemporaryDirectory(prefix="fedtalk-") as private,
        trainer.stop_signals as stop,
    ):
        federation = trainer.connect(module, data, "fit")
        federation.client_states.begin(0)
        site = Site(federation, trainer.engine, stop.check)
        secret_path, secret = secret_file(Path(private))
        node = Child(
            "flower-supernode",
            [
                "--isolation", "process", "--superexec-auth-secret-file", str(secret_path),
                "--superlink", settings.superlink, "--root-certificates", settings.authority,
                "--auth-supernode-private-key", settings.private_key, "--host", "127.0.0.1", "--port", str(settings.port),
                "--max-wait-time", f"{min(settings.wait_seconds, MOST_WAIT_SECONDS):g}",
            ],
            trainer.run_dir / "flower",
            supernode_meanings(settings),
        )  # fmt: skip
        with closing(site), node:
            log.info("%d clients of this site wait for the server at %s", len(data.clients), settings.superlink)
            serve(
                node, f"127.0.0.1:{settings.port}", secret, site.answer, lambda: site.final_state is not None, stop.check,
                settings.wait_seconds,
            )  # fmt: skip
            answered = time.monotonic()
            trainer.personal_adapters.on_fit_rounds_end(trainer, module)
            time.sleep(max(0.0, answered + SENDING_SECONDS - time.monotonic()))
        log.info("the run has ended; its adapters are in %s", trainer.run_dir / "adapters")


def _wait_for_sites(
    trainer: FederatedTrainer, post: Post, link: Child, sites: Sequence[str], settings: ServerSettings
) -> list[str]:
    """The sites that are connected, once they are enough.

    Raises:
        FedTalkError: they were too few for too long.
    """
    least, end, told = settings.least_sites or len(sites), time.monotonic() + settings.wait_seconds, -1
    while len(connected := post.connected()) < least:
        trainer.stop_signals.check()
        link.check()
        if time.monotonic() > end:
            raise FedTalkError(
                f"expected {least} sites within {settings.wait_seconds:g} s, got {len(connected)}: missing "
                f"{', '.join(sorted(set(sites) - set(connected)))}. Start them with `fedtalk flower client`, allow more time "
                "with flower.wait_seconds, or ask for fewer with flower.least_sites."
            )
        if len(connected) != told:
            told = len(connected)
            log.info("%d of %d sites are connected; waiting for %d", told, len(sites), least)
        time.sleep(0.5)
    log.info("%d of %d sites are connected: %s", len(connected), len(sites), ", ".join(connected))
    return connected


def site_keys(paths: Sequence[str]) -> dict[str, bytes]:
    """The public key of each site, by its name.

    Raises:
        ConfigurationError: two sites would have one name, or one key.
    """
    public = {_site_name(path): read_public_key(Path(path)) for path in paths}
    if len(public) < len(paths):
        raise ConfigurationError(f"flower.sites: expected files of different names, got {list(paths)}")
    if len(set(public.values())) < len(public):
        raise ConfigurationError(
            f"flower.sites: expected a key of its own for each site, got one twice in {list(paths)}"
        )
    return public


def _site_name(path: str) -> str:
    """
    >>> _site_name("keys/north.pub"), _site_name("north.key.pub")
    ('north', 'north')
    """
    return Path(path).name.removesuffix(".pub").removesuffix(".key")


def supernode_meanings(settings: ClientSettings) -> dict[str, str]:
    """What a SuperNode's last words mean for this site's settings, by a phrase in them."""
    clocks = "and the clocks of both machines to agree within 5 s"
    return {
        "certificate verify failed": f"the certificate of the server at {settings.superlink} does not fit flower.authority "
        f"{settings.authority}: expected the certificate of the authority that signed the server's, and a host that the "
        "server's certificate names",
        "Failed to activate SuperNode": f"the server at {settings.superlink} does not take the key flower.private_key "
        f"{settings.private_key}: expected its public half (.pub) among the server's flower.sites, no other site with it, "
        f"{clocks}",
        "401 Unauthorized": f"the server at {settings.superlink} does not know this site's signature: expected a server that "
        f"was not started again meanwhile, {clocks}",
        "address already in use": f"flower.port {settings.port} is taken: expected a free port on this machine, another one "
        "for each site on it",
        "Connection attempt failed": f"the server can't be reached at {settings.superlink}: expected `fedtalk flower server` "
        "to run there, and no firewall between",
    }
