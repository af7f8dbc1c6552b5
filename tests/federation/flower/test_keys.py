"""Keys and settings: what is written fits together, what is wrong is named."""

from __future__ import annotations

import ast
import importlib.util
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_private_key

import fedtalk.federation.flower.engine as engine_module
from fedtalk.cli import main
from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.federation.flower import require_flower
from fedtalk.federation.flower.keys import read_public_key, write_keys
from fedtalk.federation.flower.settings import ClientSettings, ServerSettings


def test_the_certificate_is_the_authoritys_and_names_the_host(tmp_path: Path) -> None:
    write_keys(tmp_path, ["fed.example.org", "10.0.0.7"], ["north"])
    authority, server = (
        x509.load_pem_x509_certificate((tmp_path / name).read_bytes()) for name in ("authority.crt", "server.crt")
    )
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fed.example.org", "localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7", "127.0.0.1"]
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")


def test_private_keys_are_their_owners_alone_and_stay_what_they_are(tmp_path: Path) -> None:
    write_keys(tmp_path, ["localhost"], ["north"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.key")}
    assert len(before) == 2 and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in before)
    written = write_keys(tmp_path, ["localhost"], ["north", "south"])
    assert [path.name for path in written] == ["south.key", "south.pub"]
    assert all(path.read_bytes() == content for path, content in before.items())


def test_the_public_half_is_the_private_ones(tmp_path: Path) -> None:
    write_keys(tmp_path, ["localhost"], ["north"])
    private = load_ssh_private_key((tmp_path / "sites" / "north.key").read_bytes(), None)
    public = load_pem_public_key(read_public_key(tmp_path / "sites" / "north.pub"))
    assert private.public_key() == public and public.curve.name == "secp384r1"


def test_what_is_no_key_or_no_name_is_refused(tmp_path: Path) -> None:
    for name in ("../north", "", ".", "a/b"):
        with pytest.raises(ConfigurationError, match="sites: expected names"):
            write_keys(tmp_path / "keys", ["localhost"], [name])
    assert not (tmp_path / "keys").exists()
    (tmp_path / "wrong.pub").write_text(
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl a"
    )
    with pytest.raises(ArtifactError, match="NIST"):
        read_public_key(tmp_path / "wrong.pub")
    with pytest.raises(ArtifactError, match="can't be read"):
        read_public_key(tmp_path / "none.pub")


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (ServerSettings, {"port": 0}, r"flower\.port: expected a port"),
        (ServerSettings, {"sites": []}, r"flower\.sites: "),
        (ServerSettings, {"least_sites": 2}, r"flower\.least_sites: expected 1 to .* 1, got 2"),
        (ServerSettings, {"answer_seconds": 0}, r"flower\.answer_seconds: expected seconds above 0"),
        (ClientSettings, {"port": 70000}, r"flower\.port: expected a port"),
        (ClientSettings, {"wait_seconds": float("nan")}, r"flower\.wait_seconds: "),
    ],
)
def test_wrong_settings_name_their_key(settings: type, changes: dict, message: str) -> None:
    values = {"authority": "a", "private_key": "k"}
    values |= {"certificate": "c", "sites": ["n.pub"]} if settings is ServerSettings else {"superlink": "localhost:1"}  # type: ignore[dict-item]
    settings(**values)
    with pytest.raises(ConfigurationError, match=message):
        settings(**values | changes)


def test_the_command_says_what_it_knows(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["flower"]) == 0 and "fedtalk flower server" in capsys.readouterr().out
    assert main(["flower", "serve"]) == 1 and "expected one of keys, server, client" in capsys.readouterr().err
    assert main(["flower", "keys", str(tmp_path), "--sites", "a, b"]) == 0
    assert {path.name for path in (tmp_path / "sites").iterdir()} == {"a.key", "a.pub", "b.key", "b.pub"}


def test_without_flower_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r'pip install "fedtalk\[flower\]"|Python 3\.11'):
        require_flower()


def test_flower_reports_to_nobody_unless_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import sys

    if sys.version_info < (3, 11):
        pytest.skip("Flower needs Python 3.11")
    monkeypatch.delenv("FLWR_TELEMETRY_ENABLED", raising=False)
    monkeypatch.setenv("FLWR_DISABLE_UPDATE_CHECK", "0")
    require_flower()
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0" and os.environ["FLWR_DISABLE_UPDATE_CHECK"] == "0"
    monkeypatch.delenv("FLWR_TELEMETRY_ENABLED")


def test_the_servers_module_knows_no_client_half_and_no_flower() -> None:
    tree = ast.parse(Path(engine_module.__file__).read_text())
    names = {
        f"{node.module}.{name.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    forbidden = ("flwr", "fedtalk.federation.client.", "fedtalk.privacy.secagg.client", "fedtalk.federation.flower.site",
                 "fedtalk.privacy.private_round.ClientEncoding", "fedtalk.federation.local")  # fmt: skip
    assert not [name for name in names if name.startswith(forbidden)]
