"""Keys and settings: what is written fits together, what is wrong is named."""

from __future__ import annotations

import importlib.util
import os
import ssl
import stat
import sys
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from fedtalk.cli import main
from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.federation.engines.flower import proxy_variable, require_flower, spare_loopback
from fedtalk.federation.engines.flower.keys import (
    check_certificate,
    read_authority,
    read_private_key,
    read_public_key,
    write_keys,
)
from fedtalk.federation.engines.flower.parties import site_keys, supernode_meanings
from fedtalk.federation.engines.flower.processes import Child
from fedtalk.federation.engines.flower.settings import ClientSettings, ServerSettings


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
    assert len(before) == 3 and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in before)
    written = write_keys(tmp_path, ["localhost"], ["north", "south"])
    assert [path.name for path in written] == ["south.key", "south.pub"]
    assert all(path.read_bytes() == content for path, content in before.items())


def test_the_public_half_is_the_private_ones(tmp_path: Path) -> None:
    write_keys(tmp_path, ["localhost"], ["north"])
    for private, public in (("sites/north.key", "sites/north.pub"), ("signing.key", "server.pub")):
        key = read_public_key(tmp_path / public)
        assert read_private_key(str(tmp_path / private)).public_key() == key and key.curve.name == "secp384r1"


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


def test_files_that_dont_fit_are_named_before_anything_starts(tmp_path: Path) -> None:
    """Flower would say so in the log of a process that is started again and again, or wait for ever."""
    write_keys(tmp_path, ["localhost"], ["north"])
    garbage, north = tmp_path / "garbage", tmp_path / "sites" / "north.key"
    garbage.write_text("garbage")
    read_authority(str(tmp_path / "authority.crt"))
    read_private_key(str(north))
    check_certificate(str(tmp_path / "server.crt"), str(tmp_path / "server.key"))
    for path in (garbage, tmp_path / "none", tmp_path):
        with pytest.raises(ArtifactError, match=rf"flower\.authority: {path} can't be used .*expected a certificate"):
            read_authority(str(path))
        with pytest.raises(ArtifactError, match=rf"flower\.private_key: {path} can't be used .*expected a private key"):
            read_private_key(str(path))
        with pytest.raises(ArtifactError, match=rf"flower\.certificate: {path}.* can't be used"):
            check_certificate(str(path), str(tmp_path / "server.key"))
    with pytest.raises(ArtifactError, match=r"flower\.private_key: .*north\.pub can't be used"):
        read_private_key(str(north.with_suffix(".pub")))
    write_keys(tmp_path / "other", ["localhost"], [])
    with pytest.raises(ArtifactError, match=r"flower\.certificate: .*its own unencrypted private key"):
        check_certificate(str(tmp_path / "server.crt"), str(tmp_path / "other" / "server.key"))


def test_two_sites_have_two_names_and_two_keys(tmp_path: Path) -> None:
    write_keys(tmp_path, ["localhost"], ["north", "south"])
    north, south = (tmp_path / "sites" / f"{site}.pub" for site in ("north", "south"))
    assert list(site_keys([str(north), str(south)])) == ["north", "south"]
    with pytest.raises(ConfigurationError, match=r"flower\.sites: expected files of different names"):
        site_keys([str(north), str(north)])
    south.write_bytes(north.read_bytes())
    with pytest.raises(
        ConfigurationError, match=r"flower\.sites: expected a key of its own for each site, got one twice"
    ):
        site_keys([str(north), str(south)])


def test_what_a_supernode_says_is_told_in_words_of_the_settings(tmp_path: Path) -> None:
    settings = ClientSettings("fed.example.org:9092", "authority.crt", "server.pub", "north.key", port=9097)
    said = {
        "[code: 2004] Failed to activate SuperNode. | see flower.ai": "does not take the key flower.private_key north.key",
        "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable": "does not fit flower.authority authority.crt",
        "WARNING :   Connection attempt failed, retrying in 1.61 seconds": "can't be reached at fed.example.org:9092",
        "[Errno 98] error while attempting to bind: address already in use": "flower.port 9097 is taken",
        "\x1b[91mERROR\x1b[0m: nobody knew of this": "ERROR: nobody knew of this",
    }
    for words, meaning in said.items():
        node = Child("flower-supernode", [], tmp_path, supernode_meanings(settings))
        node.log_file.write_text(f"INFO: hello\n{words}\nThe SuperNode could not establish a connection\n")
        assert meaning in node.last_words()


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (ServerSettings, {"port": 0}, r"flower\.port: expected a port"),
        (ServerSettings, {"sites": []}, r"flower\.sites: "),
        (ServerSettings, {"least_sites": 2}, r"flower\.least_sites: expected 1 to .* 1, got 2"),
        (ServerSettings, {"answer_seconds": 0}, r"flower\.answer_seconds: expected seconds above 0"),
        (ClientSettings, {"superlink": "fed.example.org"}, r"flower\.superlink: expected host:port"),
        (ClientSettings, {"superlink": "https://fed.example.org:9092"}, r"flower\.superlink: expected host:port"),
        (ClientSettings, {"port": 70000}, r"flower\.port: expected a port"),
        (ClientSettings, {"wait_seconds": float("nan")}, r"flower\.wait_seconds: "),
    ],
)
def test_wrong_settings_name_their_key(settings: type, changes: dict, message: str) -> None:
    values: dict = {"private_key": "k"}
    values |= (
        {"certificate": "c", "signing_key": "s", "sites": ["n.pub"]}
        if settings is ServerSettings
        else {"superlink": "localhost:1", "authority": "a", "server": "s.pub"}
    )
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


def test_loopback_never_goes_by_a_proxy_and_anything_else_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    settings = ClientSettings("fed.example.org:9092", "authority.crt", "server.pub", "north.key")
    node = Child("flower-supernode", [], tmp_path, supernode_meanings(settings))
    node.log_file.write_text("WARNING :   Connection attempt failed, retrying\n")
    assert "proxy" not in node.last_words()
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    monkeypatch.setenv("no_proxy", "intranet")
    node = Child("flower-supernode", [], tmp_path, supernode_meanings(settings))
    assert "HTTPS_PROXY sends it to the proxy http://proxy.example.org:3128" in node.last_words()
    assert "fed.example.org in NO_PROXY" in node.last_words()
    spare_loopback()
    assert os.environ["no_proxy"] == "intranet,localhost,127.0.0.1,::1"
    # By what Flower's own clients are made of.
    through = httpx._utils.get_environment_proxies()
    assert through["https://"] == "http://proxy.example.org:3128"
    assert {"all://localhost", "all://127.0.0.1"} <= {host for host, proxy in through.items() if proxy is None}
    assert proxy_variable("127.0.0.1") is None and proxy_variable("fed.example.org") == "HTTPS_PROXY"


def test_flower_reports_to_nobody_unless_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.version_info < (3, 11):
        pytest.skip("Flower needs Python 3.11")
    monkeypatch.delenv("FLWR_TELEMETRY_ENABLED", raising=False)
    monkeypatch.setenv("FLWR_DISABLE_UPDATE_CHECK", "0")
    require_flower()
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0" and os.environ["FLWR_DISABLE_UPDATE_CHECK"] == "0"
    monkeypatch.delenv("FLWR_TELEMETRY_ENABLED")
