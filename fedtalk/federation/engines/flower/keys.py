"""Certificates and keys to try things with: an authority of one's own, the server's certificate, a key pair a site."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)
from cryptography.x509.oid import NameOID

from fedtalk.errors import ArtifactError, ConfigurationError

DAYS = 365
"""Validity of the certificates."""


def write_keys(folder: Path, hosts: Sequence[str], sites: Sequence[str]) -> list[Path]:
    """Write ``authority.crt``, ``server.crt`` and ``server.key`` for TLS, ``signing.key`` and ``server.pub`` by which sites know
    what the server says, and for each site ``sites/SITE.key`` and ``SITE.pub``.

    Files that are there already stay; the authority's own key is not kept, so a new server certificate takes a new folder.

    Args:
        folder: to write; private keys are readable by their owner alone.
        hosts: names and addresses by which sites reach the server; localhost and 127.0.0.1 are added.
        sites: names of the sites.

    Returns:
        the files that were written.

    Raises:
        ConfigurationError: a site's name is no file name.
    """
    for site in sites:
        if not site or site != Path(site).name or site.startswith("."):
            raise ConfigurationError(f"sites: expected names that can name a file, got {site!r}")
    written: list[Path] = []

    def write(path: Path, content: bytes, private: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        written.append(path)

    if not (folder / "server.crt").exists():
        authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        authority = _certificate("fedtalk authority", authority_key.public_key(), None, authority_key, [])
        names = list(dict.fromkeys([*hosts, "localhost", "127.0.0.1"]))
        server = _certificate(names[0], server_key.public_key(), authority, authority_key, names)
        write(folder / "authority.crt", authority.public_bytes(Encoding.PEM))
        write(folder / "server.crt", server.public_bytes(Encoding.PEM))
        write(folder / "server.key", _private(server_key, PrivateFormat.PKCS8), private=True)
    pairs = {folder / "signing.key": folder / "server.pub"}
    pairs |= {folder / "sites" / f"{site}.key": folder / "sites" / f"{site}.pub" for site in sites}
    for path, public in pairs.items():
        if not path.exists():
            key = ec.generate_private_key(ec.SECP384R1())
            write(path, _private(key, PrivateFormat.OpenSSH), private=True)
            write(public, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    return written


def read_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """The public key of a site or of the server, from a file in OpenSSH's format.

    Raises:
        ArtifactError: there is none, or it isn't of an elliptic curve that Flower takes.
    """
    try:
        key = load_ssh_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ArtifactError(
            f"public key {path} can't be read ({type(error).__name__}); expected one that `fedtalk flower keys` or "
            "`ssh-keygen -t ecdsa -b 384` made"
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ArtifactError(
            f"public key {path}: expected an elliptic curve of NIST's (ecdsa), got {type(key).__name__}"
        )
    return key


def in_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as Flower registers it."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of a public key, in hexadecimal."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def read_authority(path: str) -> bytes:
    """An authority's certificate, in PEM.

    Raises:
        ArtifactError: there is none.
    """
    content = _read(path, "authority", "a certificate in PEM")
    try:
        x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise _unfit(path, "authority", "a certificate in PEM", error) from error
    return content


def check_certificate(certificate: str, private_key: str) -> None:
    """
    Raises:
        ArtifactError: they can't be read, or don't belong together.
    """
    for name, path in (("certificate", certificate), ("private_key", private_key)):
        _read(path, name, "a PEM file")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, private_key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        what = "a certificate in PEM and its own unencrypted private key (flower.private_key)"
        raise _unfit(f"{certificate} with {private_key}", "certificate", what, error) from error


def read_private_key(path: str, name: str = "private_key") -> ec.EllipticCurvePrivateKey:
    """A private key, from a file in OpenSSH's format.

    Args:
        path: the file.
        name: of the setting that names it.

    Raises:
        ArtifactError: it is none that Flower takes.
    """
    what = "a private key in OpenSSH's format, of an elliptic curve of NIST's (ecdsa), without a passphrase"
    content = _read(path, name, what)
    try:
        key = load_ssh_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unfit(path, name, what, error) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ArtifactError(f"flower.{name}: expected {what}, got {type(key).__name__} in {path}")
    return key


def _read(path: str, name: str, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unfit(path, name, what, error) from error


def _unfit(path: str, name: str, what: str, error: Exception) -> ArtifactError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else error
    return ArtifactError(
        f"flower.{name}: {path} can't be used ({why}); expected {what}, such as `fedtalk flower keys` makes"
    )


def _private(key: ec.EllipticCurvePrivateKey, form: PrivateFormat) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def _certificate(
    name: str,
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    hosts: Sequence[str],
) -> x509.Certificate:
    """A certificate for ``hosts``, or without an issuer an authority that vouches for itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    now = datetime.datetime.now(datetime.timezone.utc)
    authority = issuer is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )  # fmt: skip
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), False)
    return builder.sign(issuer_key, hashes.SHA256())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
