"""Keys that sign generated files under C2PA: the user's own, or a test certificate that this process makes for itself."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedtalk.errors import ArtifactError, ConfigurationError

CERTIFICATE, KEY, TIMESTAMP = "FEDTALK_C2PA_CERTIFICATE", "FEDTALK_C2PA_KEY", "FEDTALK_C2PA_TIMESTAMP"
"""Environment variables: PEM file with the certificate and those it was issued by, PEM file with its key, address of a
time-stamping service (none: no network is used, and the signature is good as long as its certificate)."""
C2PA_SIGNING = x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1")
"""Extended key usage of certificates that sign C2PA claims."""
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True)
class Credentials:
    """What a C2PA signer needs."""

    chain: bytes
    """PEM: the signing certificate first, then those it was issued by."""
    key: bytes
    """PEM, PKCS #8, unencrypted."""
    algorithm: str
    """es256, es384, es512, ps256 or ed25519."""
    timestamp: str | None
    """Address of an RFC 3161 time-stamping service."""
    test: bool
    """Whether this is the test certificate, which vouches for nobody."""

    @property
    def root(self) -> bytes:
        """PEM of the chain's last certificate."""
        return x509.load_pem_x509_certificates(self.chain)[-1].public_bytes(serialization.Encoding.PEM)


def credentials() -> Credentials:
    """The user's credentials where `CERTIFICATE` and `KEY` name them, else `test_credentials`.

    Raises:
        ConfigurationError: only one of the two is set, or the key is not the certificate's.
        ArtifactError: a file can't be read or holds something else.
    """
    certificate, key = os.environ.get(CERTIFICATE), os.environ.get(KEY)
    if bool(certificate) != bool(key):
        raise ConfigurationError(f"signing: set both {CERTIFICATE} and {KEY} (PEM files), or neither")
    if not certificate or not key:
        return test_credentials()
    try:
        chain, secret = Path(certificate).expanduser().read_bytes(), Path(key).expanduser().read_bytes()
        leaf = x509.load_pem_x509_certificates(chain)[0]
        private = serialization.load_pem_private_key(secret, password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ArtifactError(
            f"signing: {CERTIFICATE}={certificate} and {KEY}={key} can't be used ({error}); expected PEM files: the "
            "certificate with those it was issued by, and its unencrypted key"
        ) from error
    if private.public_key() != leaf.public_key():
        raise ConfigurationError(f"signing: the key {key} does not belong to the first certificate in {certificate}")
    if not leaf.not_valid_before_utc <= datetime.now(timezone.utc) <= leaf.not_valid_after_utc:
        raise ConfigurationError(
            f"signing: the certificate {certificate} is valid from {leaf.not_valid_before_utc:%Y-%m-%d} to "
            f"{leaf.not_valid_after_utc:%Y-%m-%d}, not today"
        )
    return Credentials(chain, secret, _algorithm(private, key), os.environ.get(TIMESTAMP) or None, test=False)


@functools.cache
def test_credentials() -> Credentials:
    """A signing certificate and its own authority, made once a process and kept in memory only.

    It shows that a file was not changed since, and nothing about who made it: anybody can make such a certificate. So there
    is no key on disk that could be lost or taken for an identity.
    """
    authority, signer = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _certificate("fedtalk test authority", authority, "fedtalk test authority", authority, is_authority=True)
    leaf = _certificate("fedtalk test certificate", signer, "fedtalk test authority", authority, is_authority=False)
    key = signer.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in (leaf, root))
    return Credentials(chain, key, "es256", None, test=True)


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    """As C2PA 2.x, "Certificate profile", wants them: version 3, key identifiers, and for a signer its key usage."""
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_authority, key_cert_sign=is_authority, crl_sign=is_authority,
                content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
                encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )  # fmt: skip
    if not is_authority:
        usage = x509.ExtendedKeyUsage([C2PA_SIGNING, ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name([
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "fedtalk test, vouches for nobody"),
        x509.NameAttribute(NameOID.COMMON_NAME, common),
    ])  # fmt: skip


def _algorithm(key: object, path: str) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES:
        return CURVES[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    raise ConfigurationError(f"signing: {path} is a {type(key).__name__}; expected an EC, Ed25519 or RSA key")
