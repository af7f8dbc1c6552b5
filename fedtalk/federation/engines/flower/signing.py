"""Signatures over what server and sites say to each other, by the keys that each has of the other.

Flower authenticates connections, not senders: whoever has a connection can put another one's name on an answer. So every
request is signed by the server, for one site, with 32 random bytes that make it like no other; and every answer is signed by
its site together with the hash of the request that it answers, which stands for the request's session, round, kind and
content. ECDSA over SHA-256, on the curve of the key.

    request = b"fedtalkS"  length of signature (2 bytes)  signature  nonce (32)  message
    answer  = b"fedtalkS"  length of signature (2 bytes)  signature  message
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedtalk.errors import FedTalkError
from fedtalk.federation.engines.flower.messages import SiteMessage
from fedtalk.federation.engines.flower.transport import Transport

log = logging.getLogger("fedtalk")

MAGIC = b"fedtalkS"
NONCE_BYTES = 32
_REQUEST, _ANSWER = b"fedtalk flower request, version 1", b"fedtalk flower answer, version 1"
_START = len(MAGIC) + 2


class SignatureError(FedTalkError):
    """Bytes that aren't signed by whom they should be, for what they are used for."""


class SignedTransport(Transport):
    """Another transport, whose requests are signed and of whose answers only those are handed on that their site has signed."""

    def __init__(
        self, transport: Transport, key: ec.EllipticCurvePrivateKey, sites: Mapping[str, ec.EllipticCurvePublicKey]
    ) -> None:
        """
        Args:
            transport: carries the signed bytes.
            key: the server's.
            sites: public key of each site, as the server was given it.
        """
        self._transport, self._key, self._sites = transport, key, dict(sites)
        self.refused: Counter[str] = Counter()
        """By site, answers in its name that it hasn't signed."""

    def connected(self) -> list[str]:
        return self._transport.connected()

    def ask(self, requests: Mapping[str, bytes], seconds: float, check: Callable[[], None]) -> dict[str, bytes]:
        signed, asked = {}, {}
        for site, message in requests.items():
            nonced = secrets.token_bytes(NONCE_BYTES) + message
            asked[site] = _request_digest(self._sites[site], nonced)
            signed[site] = _framed(self._key, asked[site], nonced)
        answers = {}
        for site, data in self._transport.ask(signed, seconds, check).items():
            try:
                message = _body(data)
                _verify(self._sites[site], data, _answer_digest(asked[site], message))
            except (SignatureError, KeyError):
                self.refused[site] += 1
                log.warning(
                    "an answer in the name of site %s is not signed by it and was refused (%d by now): expected its own, to this "
                    "request. Somebody answers in its place, or it runs another version", site, self.refused[site],
                )  # fmt: skip
                continue
            answers[site] = message
        return answers


class SignedAnswers:
    """A site's way to answer: only what its server has signed for it, each request once, with its own signature."""

    def __init__(
        self, answer: Callable[[bytes], bytes], key: ec.EllipticCurvePrivateKey, server: ec.EllipticCurvePublicKey
    ) -> None:
        """
        Args:
            answer: from a request to its answer, both without signatures.
            key: the site's.
            server: the public key by which the site knows its server.
        """
        self._answer, self._key, self._server = answer, key, server
        self._seen: set[bytes] = set()
        self.refused = 0
        """Requests that weren't signed by the server for this site, or came twice."""

    def __call__(self, data: bytes) -> bytes:
        try:
            nonced = _body(data)
            digest = _request_digest(self._key.public_key(), nonced)
            if digest in self._seen:  # no answer: a second one to the same request could take the first one's place
                raise SignatureError("a request came a second time; it was recorded and is played back")
        except SignatureError as error:
            self._refuse(error)
            return b""
        try:
            _verify(self._server, data, digest)
        except SignatureError as error:
            self._refuse(error)
            reply = SiteMessage("refused", {"why": f"{error} (this site's flower.server)"}).encode()
        else:
            self._seen.add(digest)
            reply = self._answer(nonced[NONCE_BYTES:])
        return _framed(self._key, _answer_digest(digest, reply), reply)

    def _refuse(self, error: SignatureError) -> None:
        self.refused += 1
        log.warning("refused a request that is not the server's (%d by now): %s", self.refused, error)


def _request_digest(recipient: ec.EllipticCurvePublicKey, nonced: bytes) -> bytes:
    whose = recipient.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(_REQUEST + hashlib.sha256(whose).digest() + nonced).digest()


def _answer_digest(request: bytes, message: bytes) -> bytes:
    return hashlib.sha256(_ANSWER + request + message).digest()


def _framed(key: ec.EllipticCurvePrivateKey, digest: bytes, body: bytes) -> bytes:
    signature = key.sign(digest, ec.ECDSA(hashes.SHA256()))
    return b"".join([MAGIC, len(signature).to_bytes(2, "big"), signature, body])


def _signature_end(data: bytes) -> int:
    end = _START + int.from_bytes(data[len(MAGIC) : _START], "big")
    if data[: len(MAGIC)] != MAGIC or len(data) < max(_START, end):
        raise SignatureError(f"{len(data)} bytes: expected a signature and what is signed, got neither")
    return end


def _body(data: bytes) -> bytes:
    return data[_signature_end(data) :]


def _verify(key: ec.EllipticCurvePublicKey, data: bytes, digest: bytes) -> None:
    try:
        key.verify(data[_START : _signature_end(data)], digest, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise SignatureError("expected the signature of the key that is known for its sender, got another") from None
