"""Signatures that say who removed something from a ledger, or where a chain stood: Ed25519 (RFC 8032).

What is signed is the msgpack array of a statement's values. A public key is known by its fingerprint: "sha256:" and the
SHA-256, in hexadecimal, of its SubjectPublicKeyInfo in DER, which is what its PEM file holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import msgspec

from upstack.core.errors import LedgerError

SEED_BYTES = 32

_encode = msgspec.msgpack.Encoder().encode


class Signer:
    """A private key, from its seed."""

    def __init__(self, seed: bytes) -> None:
        from Crypto.PublicKey import ECC  # noqa: PLC0415 - only who signs pays for it
        from Crypto.Signature import eddsa  # noqa: PLC0415

        key = ECC.construct(curve="Ed25519", seed=seed)
        self._scheme = eddsa.new(key, "rfc8032")
        self._seed = seed
        self.pem = str(key.public_key().export_key(format="PEM")) + "\n"
        self.fingerprint = _fingerprint(key.public_key())

    def sign(self, values: Iterable[Any]) -> str:
        """Sign the values of a statement; hexadecimal."""
        return self._scheme.sign(_encode(list(values))).hex()

    def digest(self, text: str) -> str:
        """Hash a text so that who has this key can find it again, and nobody else can guess it."""
        return sha256(self._seed + b"\0digest\0" + text.encode()).hexdigest()[:32]


class PublicKeys:
    """The keys whose signatures are believed."""

    def __init__(self, pems: Iterable[str] = ()) -> None:
        self._schemes: dict[str, Any] = {}
        for pem in pems:
            self.add(pem)

    def add(self, pem: str) -> str:
        """Believe one more key and return its fingerprint; LedgerError where it is none."""
        from Crypto.PublicKey import ECC  # noqa: PLC0415 - only who looks at signatures pays for it
        from Crypto.Signature import eddsa  # noqa: PLC0415

        try:
            key = ECC.import_key(pem)
            scheme = eddsa.new(key, "rfc8032")
        except (ValueError, IndexError, TypeError):
            raise LedgerError(
                "this is no Ed25519 public key in PEM; `upstack ledger key` shows one", code="public_key"
            ) from None
        fingerprint = _fingerprint(key.public_key() if key.has_private() else key)
        self._schemes[fingerprint] = scheme
        return fingerprint

    def doubt(self, signer: str, signature: str, values: Iterable[Any]) -> str | None:
        """Say why a signature is not believed, or None."""
        scheme = self._schemes.get(signer)
        if scheme is None:
            return f"is signed by {signer}, whose public key is not known here (`--public-key` names it)"
        try:
            scheme.verify(_encode(list(values)), bytes.fromhex(signature))
        except ValueError:
            return "does not bear out its signature: it was edited or forged"
        return None


def new_seed() -> bytes:
    """Make a private key."""
    return os.urandom(SEED_BYTES)


def _fingerprint(public: Any) -> str:
    return f"sha256:{sha256(public.export_key(format='DER')).hexdigest()}"
