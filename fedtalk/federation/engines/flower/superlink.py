"""The server's side of Flower: a SuperLink, the sites' keys registered with it, and a run whose ServerApp is this process."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import SubStatus
from flwr.common.serde import fab_to_proto, run_from_proto
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest  # type: ignore[attr-defined]
from flwr.proto.runtime_pb2 import (  # type: ignore[attr-defined]
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from fedtalk.errors import FedTalkError
from fedtalk.federation.engines.flower.processes import Child
from fedtalk.version import __version__

log = logging.getLogger("fedtalk")

ACQUIRE = frozenset({"/flwr.proto.Runtime/AcquireTask"})
UNREACHABLE_SECONDS = 20.0
"""Time for which a SuperLink that was there may be out of reach."""
START_SECONDS = 120.0
"""Time that a SuperLink or SuperNode has to come up."""

APP = f"""
[project]
name = "fedtalk"
version = "{__version__}"
dependencies = []

[tool.flwr.app]
publisher = "fedtalk"

[tool.flwr.app.components]
serverapp = "fedtalk_has_no_code:server"
clientapp = "fedtalk_has_no_code:client"
"""
"""Flower wants an app bundle for each run. Ours holds this text and no code: server and sites run what is installed there."""


def secret_file(folder: Path) -> tuple[Path, bytes]:
    """A fresh secret by which only this process may take tasks from the Flower program that it starts."""
    folder.mkdir(parents=True, exist_ok=True)
    path, secret = folder / "executor.secret", secrets.token_bytes(32)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(secret)
    return path, secret


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
    link: Child, address: str, authority: bytes, secret: bytes, keys: Mapping[str, bytes], check: Callable[[], None]
) -> Iterator[tuple[HttpGrid, dict[str, int]]]:
    """Register the sites with a SuperLink that is coming up, start a run and be its ServerApp while the block runs.

    Args:
        link: the SuperLink.
        address: where it is reached, ``host:port``, by a name in its certificate.
        authority: certificate in PEM against which its own is checked.
        secret: see `secret_file`.
        keys: public key of each site, in PEM.
        check: called while waiting; may raise to stop.

    Raises:
        FedTalkError: the SuperLink doesn't come up, or goes.

    Yields:
        the run's grid, and each site's node.
    """
    version = RuntimeVersionHttpInterceptor(component_name="fedtalk")
    control = ControlHttpClient.from_server_address(address, False, authority, [version])
    executor = RuntimeHttpClient.from_server_address(
        address,
        False,
        authority,
        [version, SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=ACQUIRE)],
    )
    try:
        wait_until(lambda: _reached(control), link, check, f"a SuperLink at {address}")
        node_of = {
            site: control.RegisterNode(RegisterNodeRequest(public_key=key, name=site)).node_id
            for site, key in keys.items()
        }
        bundle, _ = build_fab_from_files({"pyproject.toml": APP.encode()})
        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        run_id = control.StartRun(StartRunRequest(fab=fab_to_proto(fab))).run_id
        if not run_id:
            raise FedTalkError(f"the SuperLink started no run; expected one, see {link.log_file}")
        token = ""

        def acquired() -> bool:
            nonlocal token
            response = executor.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
            if response.HasField("task") and response.task.run_id == run_id:
                token = response.token
            return bool(token)

        wait_until(acquired, link, check, "the run's task")
        with _task(address, authority, token) as grid:
            yield grid, node_of
    except httpx.TransportError as error:
        link.check()
        raise FedTalkError(
            f"the SuperLink at {address} can't be reached any more ({error}); see {link.log_file}, then go on with "
            "--ckpt_path last"
        ) from error
    finally:
        executor.close()
        control.close()


@contextlib.contextmanager
def _task(address: str, authority: bytes, token: str) -> Iterator[HttpGrid]:
    grid = HttpGrid(address, False, authority, token=token)
    grid._retry_invoker.max_time = UNREACHABLE_SECONDS  # Flower would go on for ever, and nobody could stop it
    client = grid._runtime_client
    beating = HeartbeatSender(make_task_heartbeat_fn_http(client))
    outcome = SubStatus.FAILED
    try:
        beating.start()
        task = client.PullTaskInput(PullTaskInputRequest())
        # Of every message that is made in this process.
        TaskIdentity.task_id, TaskIdentity.run_id = task.task_id, task.run.run_id
        TaskIdentity.node_id = task.context.node_id
        grid.set_run(run_from_proto(task.run))
        yield grid
        outcome = SubStatus.COMPLETED
    finally:
        grid._retry_invoker.max_tries = 1
        with contextlib.suppress(httpx.HTTPError):
            client.PushTaskOutput(PushTaskOutputRequest(sub_status=outcome, details=""))
        if beating.is_running:
            beating.stop()
        grid.close()


def _reached(control: ControlHttpClient) -> bool:
    try:
        control.ListNodes(ListNodesRequest())
    except httpx.TransportError as error:
        if "certificate" in str(error).lower():
            raise FedTalkError(
                f"the SuperLink's certificate does not fit: {error}. Expected one for the name by which it is reached here "
                "(flower.local_name), signed by flower.authority"
            ) from error
        return False
    return True
