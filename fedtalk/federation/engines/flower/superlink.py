"""The server's side of Flower: a SuperLink, the sites' keys registered with it, and a run whose ServerApp is this process."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
from flwr.serverapp import Grid

from fedtalk.errors import FedTalkError
from fedtalk.federation.engines.flower.flwr_internals import Control, Tasks, grid_of, inside_port
from fedtalk.federation.engines.flower.processes import Child

START_SECONDS = 120.0
"""Time that a SuperLink or SuperNode has to come up."""


def secret_file(folder: Path) -> Path:
    """A fresh secret by which only this process may take tasks from the Flower program that it starts."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "executor.secret"
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(secrets.token_hex(32).encode())
    return path


def wait_until(ready: Callable[[], bool], child: Child, check: Callable[[], None], what: str) -> None:
    """
    Raises:
        FedTalkError: the child ended, or nothing came of it in `START_SECONDS`.
    """
    end = time.monotonic() + START_SECONDS
    while not ready():
        check()
        child.check()
        if time.monotonic() > end:
            raise FedTalkError(f"{what}: expected within {START_SECONDS:g} s, got nothing; see {child.log_file}")
        time.sleep(0.2)


@contextlib.contextmanager
def server_app(
    link: Child, inside: Path, secret: Path, keys: Mapping[str, bytes], check: Callable[[], None]
) -> Iterator[tuple[Grid, dict[str, int]]]:
    """Register the sites with a SuperLink that is coming up, start a run and be its ServerApp while the block runs.

    Args:
        link: the SuperLink.
        inside: file into which it writes where this process reaches it.
        secret: see `secret_file`.
        keys: public key of each site, in PEM.
        check: called while waiting; may raise to stop.

    Raises:
        FedTalkError: the SuperLink doesn't come up, or goes.

    Yields:
        the run's grid, and each site's node.
    """
    wait_until(lambda: inside_port(inside) is not None, link, check, "a SuperLink")
    address = f"127.0.0.1:{inside_port(inside)}"
    control, tasks = Control(address, secret), Tasks(address, secret, server=True)
    try:
        wait_until(control.reached, link, check, "an answer of the SuperLink")
        node_of = {site: control.register(site, key) for site, key in keys.items()}
        run = control.start_run()
        if not run:
            raise FedTalkError(f"the SuperLink started no run; expected one, see {link.log_file}")
        token = ""

        def acquired() -> bool:
            nonlocal token
            taken = tasks.take()
            if taken is not None and taken[1] == run:
                token = taken[0]
            return bool(token)

        wait_until(acquired, link, check, "the run's task")
        with grid_of(address, secret, token) as grid:
            yield grid, node_of
    except httpx.TransportError as error:
        link.check()
        raise FedTalkError(
            f"the SuperLink can't be reached any more ({error}); see {link.log_file}, then go on with --ckpt_path last"
        ) from error
    finally:
        tasks.close()
        control.close()
