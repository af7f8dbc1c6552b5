"""The two parties as processes: a server with its SuperLink, a site with its SuperNode."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from fedtalk.data.source import ClipData
from fedtalk.errors import ConfigurationError, FedTalkError
from fedtalk.federation.engines.flower import proxy_variable
from fedtalk.federation.engines.flower.agreement import agreement_of, check_sealed
from fedtalk.federation.engines.flower.engine import FlowerEngine, gather
from fedtalk.federation.engines.flower.keys import (
    check_certificate,
    fingerprint,
    in_pem,
    read_authority,
    read_private_key,
    read_public_key,
)
from fedtalk.federation.engines.flower.processes import Child
from fedtalk.federation.engines.flower.roster import SiteClients
from fedtalk.federation.engines.flower.settings import ClientSettings, ServerSettings
from fedtalk.federation.engines.flower.signing import SignedAnswers, SignedTransport
from fedtalk.federation.engines.flower.site import Site
from fedtalk.federation.engines.flower.site_session import SiteAccount
from fedtalk.federation.engines.flower.site_sizes import check_sizes
from fedtalk.federation.engines.flower.transport import Transport
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.run_lock import run_lock
from fedtalk.training.module import FederatedModule, copy_state

log = logging.getLogger("fedtalk")


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
    from fedtalk.federation.engines.flower.grid import GridTransport
    from fedtalk.federation.engines.flower.superlink import secret_file, server_app

    with run_lock(trainer.run_dir):  # before the folder's logs are begun anew; the rounds hold it
        pass
    privacy = check_sealed(trainer.privacy)
    public = site_keys(settings.sites)
    check_certificate(settings.certificate, settings.private_key)
    key = read_private_key(settings.signing_key, "signing_key")
    trainer.personal_adapters.personal = None  # they are made at the sites; here the global one alone
    with tempfile.TemporaryDirectory(prefix="fedtalk-") as private, trainer.stop_signals as stop:
        secret, inside = secret_file(Path(private)), Path(private) / "inside.json"
        link = Child(
            "flower-superlink",
            [
                "--host", settings.host, "--port", str(settings.port), "--certificate", settings.certificate,
                "--private-key", settings.private_key, "--secret", str(secret), "--inside", str(inside),
            ],
            trainer.run_dir / "flower",
            {"address already in use": f"flower.port {settings.port} is taken; stop what listens there, or choose another port"},
            "fedtalk.federation.engines.flower.superlink_program",
        )  # fmt: skip
        registered = {site: in_pem(known) for site, known in public.items()}
        with link, server_app(link, inside, secret, registered, stop.check) as (grid, node_of):
            transport = SignedTransport(GridTransport(grid, node_of), key, public)
            sites = _wait_for_sites(trainer, transport, link, list(public), settings)
            agreement = agreement_of(trainer.federate(module, data))
            clients_of = gather(transport, agreement, sites, settings.answer_seconds, stop.check)
            for line in check_sizes(clients_of, settings.most_clients, privacy, trainer.cohort_sampler, trainer.rounds):
                log.info("%s", line)
            data.enter(clients_of)
            trainer.engine = engine = FlowerEngine(transport, settings.training_seconds, settings.answer_seconds)
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
    key, server = read_private_key(settings.private_key), read_public_key(Path(settings.server))
    with (
        run_lock(trainer.run_dir),
        tempfile.TemporaryDirectory(prefix="fedtalk-") as private,
        trainer.stop_signals as stop,
    ):
        federation = trainer.connect(module, data, "fit")
        federation.client_states.begin(0)
        account = SiteAccount(
            ledger_folder(settings), fingerprint(server), settings.rounds_budget, settings.epsilon_budget
        )
        site = Site(federation, trainer.engine, account, stop.check)
        secret = secret_file(Path(private))
        node = Child(
            "flower-supernode",
            [
                "--isolation", "process", "--superexec-auth-secret-file", str(secret),
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
                node, f"127.0.0.1:{settings.port}", secret, SignedAnswers(site.answer, key, server),
                lambda: site.final_state is not None, stop.check, settings.wait_seconds,
            )  # fmt: skip
            answered = time.monotonic()
            trainer.personal_adapters.on_fit_rounds_end(trainer, module)
            time.sleep(max(0.0, answered + SENDING_SECONDS - time.monotonic()))
        log.info("the run has ended; its adapters are in %s", trainer.run_dir / "adapters")


def _wait_for_sites(
    trainer: FederatedTrainer, transport: Transport, link: Child, sites: Sequence[str], settings: ServerSettings
) -> list[str]:
    """The sites that are connected, once they are enough.

    Raises:
        FedTalkError: they were too few for too long.
    """
    least, end, told = settings.least_sites or len(sites), time.monotonic() + settings.wait_seconds, -1
    while len(connected := transport.connected()) < least:
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


def ledger_folder(settings: ClientSettings) -> Path:
    """Where a site's ledger lies: where it is told to, else in the home folder, by the site's key."""
    if settings.ledger is not None:
        return Path(settings.ledger)
    key = read_private_key(settings.private_key).public_key()
    return Path.home() / ".fedtalk" / "sites" / f"{_site_name(settings.private_key)}-{fingerprint(key)[:16]}"


def site_keys(paths: Sequence[str]) -> dict[str, ec.EllipticCurvePublicKey]:
    """The public key of each site, by its name.

    Raises:
        ConfigurationError: two sites would have one name, or one key.
    """
    public = {_site_name(path): read_public_key(Path(path)) for path in paths}
    if len(public) < len(paths):
        raise ConfigurationError(f"flower.sites: expected files of different names, got {list(paths)}")
    if len({in_pem(key) for key in public.values()}) < len(public):
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
    host = settings.superlink.rpartition(":")[0]
    variable = proxy_variable(host)
    proxy = (
        ""
        if variable is None
        else f". The environment's {variable} sends it to the proxy {os.environ[variable]}: expected one that lets it through, "
        f"or {host} in NO_PROXY"
    )
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
        f"to run there, and no firewall between{proxy}",
    }
