"""All that rests on names which Flower doesn't document, of the one minor release that pyproject.toml admits.

Everything else in fedtalk uses `flwr.app` and `flwr.serverapp` at most; a new Flower is a new look at this file.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from flwr.app import Message, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import TRANSPORT_TYPE_GRPC_RERE, SubStatus
from flwr.common.serde import fab_to_proto, run_from_proto
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest  # type: ignore[attr-defined]
from flwr.proto.runtime_pb2 import (  # type: ignore[attr-defined]
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
)
from flwr.serverapp import Grid
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.config_loader import SuperLinkLifespanConfig, load_control_authn_plugin
from flwr.superlink.grid import HttpGrid
from flwr.superlink.main import create_app
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from fedtalk.storage import write_json

Interceptors = list[ProtobufClientInterceptor]
ACQUIRE = frozenset({"/flwr.proto.Runtime/AcquireTask"})
UNREACHABLE_SECONDS = 20.0
"""Time for which a SuperLink or SuperNode that was there may be out of reach."""
FLEET = "/v1/fleet/"
"""What sites need of a SuperLink."""
SECRET_HEADER = "x-fedtalk-secret"

APP = """
[project]
name = "fedtalk"
version = "1.0.0"
dependencies = []

[tool.flwr.app]
publisher = "fedtalk"

[tool.flwr.app.components]
serverapp = "fedtalk_has_no_code:server"
clientapp = "fedtalk_has_no_code:client"
"""
"""Flower wants an app bundle for each run. Ours holds this text and no code: server and sites run what is installed there."""

# The SuperLink's own process


class Door:
    """An ASGI app of which only a part can be reached: by the paths' beginning, or by whoever has the secret."""

    def __init__(self, app: Any, beginning: str = "/", secret: str | None = None) -> None:
        self._app, self._beginning, self._secret = app, beginning, secret

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and self._open_for(scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "websocket.close"})

    def _open_for(self, scope: dict[str, Any]) -> bool:
        if not scope["path"].startswith(self._beginning):
            return False
        told = dict(scope["headers"]).get(SECRET_HEADER.encode(), b"")
        return self._secret is None or hmac.compare_digest(told, self._secret.encode())


class _NothingMore:
    """In place of what a SuperLink starts beside its HTTP interface: gRPC servers, if the environment says so."""

    def __init__(self, config: SuperLinkLifespanConfig, state_factory: Any) -> None: ...

    def startup(self) -> None: ...

    def shutdown(self) -> None: ...


def run_superlink(host: str, port: int, certificate: str, private_key: str, secret: Path, inside: Path) -> None:
    """Be a SuperLink until a signal ends it: sites reach its fleet interface, whoever has the secret the rest of it.

    Flower serves its control and runtime interfaces at the port that sites use, and the first asks nobody who he is. Here
    they are at a port of their own that is bound to this machine's loopback and drawn by the system, behind the secret.

    Args:
        host: address to listen at for sites.
        port: to listen at for sites, by TLS.
        certificate: for that, PEM.
        private_key: its key, PEM.
        secret: file of it, as Flower's executors are given it.
        inside: JSON file to write, with the ``port`` on 127.0.0.1 of the other interfaces.
    """
    config = SuperLinkLifespanConfig(
        control_address="", health_server_address=None, host=host, port=port, insecure=False, certificates=None,
        superexec_auth_secret=secret.read_bytes(), authn_plugin=load_control_authn_plugin(),
        event_log_plugin=None, fleet_event_log_plugin=None, enable_event_log=False, artifact_provider=None,
        enable_supernode_auth=True, fleet_api_type=TRANSPORT_TYPE_GRPC_RERE, fleet_api_address=None, simulation=False,
        ssl_ca_certfile=None, ssl_certfile=certificate, ssl_keyfile=private_key, database=FLWR_IN_MEMORY_DB_NAME,
        isolation="process", runtime_dependency_install=False,
    )  # fmt: skip
    app = create_app(config, _NothingMore)  # type: ignore[arg-type]
    listening = socket.create_server(("127.0.0.1", 0))
    behind = uvicorn.Server(uvicorn.Config(Door(app, secret=secret_text(secret)), access_log=False))  # type: ignore[arg-type]
    before = uvicorn.Server(
        uvicorn.Config(
            Door(app, FLEET),  # type: ignore[arg-type]
            host=host, port=port, ssl_certfile=certificate, ssl_keyfile=private_key, access_log=False, lifespan="off",
        )
    )  # fmt: skip

    async def both() -> None:
        write_json(inside, {"port": listening.getsockname()[1]})
        await asyncio.gather(behind.serve(sockets=[listening]), before.serve())

    asyncio.run(both())


def secret_text(secret: Path) -> str:
    """The header's value: not the secret itself, with which Flower signs requests for tasks."""
    return hashlib.sha256(b"fedtalk superlink, inside" + secret.read_bytes()).hexdigest()


def inside_port(path: Path) -> int | None:
    """The port that `run_superlink` has written, if it has by now."""
    return int(json.loads(path.read_text(encoding="utf-8"))["port"]) if path.exists() else None


# The server's dealings with it


class _Insider:
    """Shows the secret with every request."""

    def __init__(self, text: str) -> None:
        self._text = text

    def intercept(self, context: Any, call_next: Callable[[Any], httpx.Response]) -> httpx.Response:
        context.request.headers[SECRET_HEADER] = self._text
        return call_next(context)


class Control:
    """The SuperLink's control interface."""

    def __init__(self, address: str, secret: Path) -> None:
        interceptors: Interceptors = [
            RuntimeVersionHttpInterceptor(component_name="fedtalk"),
            _Insider(secret_text(secret)),
        ]
        self._client = ControlHttpClient.from_server_address(address, True, None, interceptors)

    def reached(self) -> bool:
        """Whether it answers."""
        try:
            self._client.ListNodes(ListNodesRequest())
        except httpx.TransportError:
            return False
        return True

    def register(self, site: str, key: bytes) -> int:
        """The node under which a site's key, in PEM, is registered."""
        return self._client.RegisterNode(RegisterNodeRequest(public_key=key, name=site)).node_id

    def start_run(self) -> int:
        """A run, by its number; 0 where there is none."""
        bundle, _ = build_fab_from_files({"pyproject.toml": APP.encode()})
        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        return self._client.StartRun(StartRunRequest(fab=fab_to_proto(fab))).run_id

    def close(self) -> None:
        self._client.close()


class Tasks:
    """Takes tasks from a SuperLink (``server``) or a SuperNode, as the executor that has its secret."""

    def __init__(self, address: str, secret: Path, server: bool) -> None:
        master = secret.read_bytes()
        version = RuntimeVersionHttpInterceptor(component_name="fedtalk")
        signed = SuperExecAuthHttpInterceptor(master_secret=master, protected_methods=ACQUIRE)
        insider = [_Insider(secret_text(secret))] if server else []
        self._client = RuntimeHttpClient.from_server_address(address, True, None, [version, signed, *insider])
        self._wanted = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP if server else TaskType.CLIENT_APP])

    def take(self) -> tuple[str, int] | None:
        """The next task's token and run, if one waits.

        Raises:
            httpx.HTTPError: nobody answers.
        """
        response = self._client.AcquireTask(self._wanted)
        return (response.token, response.task.run_id) if response.HasField("task") and response.token else None

    def close(self) -> None:
        self._client.close()


@contextlib.contextmanager
def grid_of(address: str, secret: Path, token: str) -> Iterator[Grid]:
    """Be the ServerApp whose task ``token`` is for, while the block runs."""
    grid = HttpGrid(address, True, None, token=token)
    grid._retry_invoker.max_time = UNREACHABLE_SECONDS  # Flower would go on for ever, and nobody could stop it
    client = grid._runtime_client
    client._interceptors = (*client._interceptors, _Insider(secret_text(secret)))
    outcome = SubStatus.FAILED
    with _beating(client):
        task = client.PullTaskInput(PullTaskInputRequest())
        # Of every message that is made in this process.
        TaskIdentity.task_id, TaskIdentity.run_id = task.task_id, task.run.run_id
        TaskIdentity.node_id = task.context.node_id
        grid.set_run(run_from_proto(task.run))
        try:
            yield grid
            outcome = SubStatus.COMPLETED
        finally:
            grid._retry_invoker.max_tries = 1
            with contextlib.suppress(httpx.HTTPError):
                client.PushTaskOutput(PushTaskOutputRequest(sub_status=outcome, details=""))
            grid.close()


@contextlib.contextmanager
def _beating(client: RuntimeHttpClient) -> Iterator[None]:
    """Tell, while the block runs, that its task is being worked on."""
    beating = HeartbeatSender(make_task_heartbeat_fn_http(client))
    try:
        beating.start()
        yield
    finally:
        if beating.is_running:
            beating.stop()


# A site's dealings with its SuperNode


def work(address: str, token: str, answer: Callable[[RecordDict], RecordDict]) -> None:
    """One task: take its message, answer it, hand the answer to the SuperNode.

    Raises:
        httpx.HTTPError: the SuperNode has ended, or given the task up.
    """
    retries = make_simple_http_retry_invoker()
    retries.max_time = UNREACHABLE_SECONDS
    interceptors: Interceptors = [
        RuntimeVersionHttpInterceptor(component_name="fedtalk"), RuntimeTokenHttpInterceptor(token)
    ]  # fmt: skip
    client = RuntimeHttpClient.from_server_address(address, True, None, interceptors, retry_invoker=retries)
    outcome, context = SubStatus.FAILED, None
    try:
        with _beating(client):
            try:
                message, context, _run, _bundle = pull_task_input(client)
                push_message(client, Message(answer(message.content), reply_to=message), context)
                outcome = SubStatus.COMPLETED
            finally:
                retries.max_tries = 1
                with contextlib.suppress(httpx.HTTPError):
                    push_task_output(client, context, outcome, "")
    finally:
        client.close()
