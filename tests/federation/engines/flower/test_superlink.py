"""The SuperLink as we start it, tried from where sites are: its fleet interface answers, nothing else does."""

from __future__ import annotations

import contextlib
import ssl
import sys
import time
from pathlib import Path

import httpx
import pytest

pytest.importorskip("flwr", reason="Flower needs Python 3.11", exc_type=ImportError)

from fedtalk.errors import FedTalkError
from fedtalk.federation.engines.flower.flwr_internals import SECRET_HEADER, Door, Tasks, inside_port, secret_text
from fedtalk.federation.engines.flower.keys import in_pem, read_public_key, write_keys
from fedtalk.federation.engines.flower.processes import Child
from fedtalk.federation.engines.flower.superlink import secret_file, server_app
from fedtalk.federation.engines.flower.supernode import serve

PROTOBUF = {"content-type": "application/protobuf", "accept": "application/protobuf"}


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # in Flower's making of an app bundle
def test_sites_reach_the_fleet_interface_and_nothing_else(tmp_path: Path, free_port: int, monkeypatch) -> None:
    """As the keyless outsider did that listed, registered and unregistered nodes, and stopped runs."""
    monkeypatch.setenv("FLWR_INTERNAL_GRPC_CONTROL_API", "1")  # nor by the interfaces that Flower had before
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    write_keys(tmp_path, ["127.0.0.1"], ["north"])
    secret, inside = secret_file(tmp_path / "private"), tmp_path / "private" / "inside.json"
    link = Child(
        "flower-superlink",
        ["--host", "127.0.0.1", "--port", str(free_port), "--certificate", str(tmp_path / "server.crt"), "--private-key",
         str(tmp_path / "server.key"), "--secret", str(secret), "--inside", str(inside)],
        tmp_path / "flower", None, "fedtalk.federation.engines.flower.superlink_program",
    )  # fmt: skip
    keys = {"north": in_pem(read_public_key(tmp_path / "sites" / "north.pub"))}
    with contextlib.ExitStack() as stack:
        stack.enter_context(link)
        grid, node_of = stack.enter_context(server_app(link, inside, secret, keys, lambda: None))
        trust = ssl.create_default_context(cafile=str(tmp_path / "authority.crt"))
        outside = stack.enter_context(
            httpx.Client(verify=trust, base_url=f"https://127.0.0.1:{free_port}", headers=PROTOBUF)
        )
        assert outside.post("/v1/fleet/pull-messages").status_code not in (
            404,
            200,
        )  # there, and wants a signature
        told = {SECRET_HEADER: secret_text(secret)}
        for path in ("/v1/control/list-nodes", "/v1/control/register-node", "/v1/control/unregister-node",
                     "/v1/control/start-run", "/v1/control/stop-run", "/v1/runtime/acquire-task", "/v1/runtime/get-nodes",
                     "/v1/runtime/pull-messages", "/v1/runtime/push-messages", "/docs", "/openapi.json", "/health",
                     "//v1/control/list-nodes", "/v1/fleet/../control/list-nodes", "/v1/fleet/%2e%2e/control/list-nodes",
                     "/v1/FLEET/pull-messages"):  # fmt: skip
            for headers in ({}, told):
                assert outside.post(path, headers=headers).status_code in (404, 405), path
        port = inside_port(inside)
        assert port is not None and port != free_port
        behind = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=PROTOBUF))
        for path in ("/v1/control/list-nodes", "/v1/runtime/get-nodes", "/v1/fleet/pull-messages"):
            for headers in ({}, {SECRET_HEADER: "0" * 64}):
                assert behind.post(path, headers=headers).status_code == 404
        assert behind.post("/v1/control/list-nodes", headers=told).status_code == 200
        assert list(grid.get_node_ids()) == [] and set(node_of) == {"north"}
        if sys.platform == "linux":
            assert _listening(link.pid) == {("127.0.0.1", free_port), ("127.0.0.1", port)}
        (tmp_path / "other" / "private").mkdir(parents=True)
        stranger = secret_file(tmp_path / "other" / "private")
        tasks = stack.enter_context(contextlib.closing(Tasks(f"127.0.0.1:{port}", stranger, server=True)))
        with pytest.raises(httpx.HTTPStatusError):
            tasks.take()


def _listening(pid: int) -> set[tuple[str, int]]:
    """Addresses on which a process of this machine waits for TCP connections, by /proc."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = str(descriptor.readlink()) if descriptor.exists() or descriptor.is_symlink() else ""
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                address, port = words[1].split(":")
                host = ".".join(str(byte) for byte in bytes.fromhex(address)[::-1]) if table == "tcp" else address
                found.add((host, int(port, 16)))
    return found


@pytest.mark.parametrize(
    ("path", "headers", "reached"),
    [
        ("/v1/fleet/x", {}, True), ("/v1/fleet", {}, False), ("/v1/control/x", {}, False), ("/", {}, False),
    ],
)  # fmt: skip
def test_a_door_opens_for_paths_that_begin_so(path: str, headers: dict, reached: bool) -> None:
    assert _status(Door(_app, "/v1/fleet/"), path, headers) == (200 if reached else 404)


def test_a_door_opens_for_whoever_has_the_secret() -> None:
    door = Door(_app, secret="s3cret")
    assert _status(door, "/v1/control/x", {SECRET_HEADER: "s3cret"}) == 200
    assert _status(door, "/v1/control/x", {SECRET_HEADER: "s3cres"}) == _status(door, "/v1/control/x", {}) == 404


async def _app(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _status(door: Door, path: str, headers: dict) -> int:
    import asyncio

    async def get() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://x") as client:  # type: ignore[arg-type]
            return (await client.get(path, headers=headers)).status_code

    return asyncio.run(get())


class _Ending(Child):
    """A SuperNode that never reaches its server: each start ends after the time that it was given."""

    def __init__(self, folder: Path) -> None:
        super().__init__("flower-supernode", [], folder)
        self.given: list[float] = []
        self.until = time.monotonic()
        self.log_file.write_text("WARNING : Connection attempt failed\n")

    def start(self, *further: str) -> None:
        self.given.append(float(further[1]))
        self.until = time.monotonic() + self.given[-1]

    @property
    def ended(self) -> bool:
        return time.monotonic() > self.until

    def check(self) -> None:
        raise FedTalkError(f"ended: {self.last_words()}")


def test_a_site_waits_for_its_server_as_long_as_it_is_told(tmp_path: Path, monkeypatch, free_port: int) -> None:
    monkeypatch.setattr("fedtalk.federation.engines.flower.supernode.RESTART_SECONDS", 0.1)
    monkeypatch.setattr("fedtalk.federation.engines.flower.supernode.MOST_WAIT_SECONDS", 0.8)
    node, began = _Ending(tmp_path), time.monotonic()
    with pytest.raises(FedTalkError, match="ended"):
        serve(node, f"127.0.0.1:{free_port}", secret_file(tmp_path), bytes, lambda: False, lambda: None, 2.0)
    assert time.monotonic() - began > 1.5 and sum(node.given) <= 2.0
    assert node.given[0] == pytest.approx(0.8) and node.given[-1] < 0.8
