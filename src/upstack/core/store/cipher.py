"""Contents as they are kept where they are encrypted: AES-256-GCM, each bound to its receipt and its place in it.

    stored = version (1 byte, 0xC1), nonce (12 random bytes), ciphertext, tag (16 bytes)
    associated data = "upstack content 1", NUL, id of the receipt or outcome, NUL, name of the field, in UTF-8

0xC1 begins no text in UTF-8, so that nothing takes a ciphertext for one. Moved to another row or field it does not
open.
"""

from __future__ import annotations

import os

KEY_BYTES = 32
_VERSION = b"\xc1"
_NONCE = 12
_TAG = 16


def encrypt(key: bytes, content: bytes, owner: str, field: str) -> bytes:
    """Encrypt what `field` of the receipt or outcome with the id `owner` holds."""
    from Crypto.Cipher import AES  # noqa: PLC0415 - only who encrypts pays for it

    nonce = os.urandom(_NONCE)
    cipher = AES.new(key, AES.MODE_GCM, nonce=nonce)
    cipher.update(_bound_to(owner, field))
    sealed, tag = cipher.encrypt_and_digest(content)
    return b"".join((_VERSION, nonce, sealed, tag))


def decrypt(key: bytes, stored: bytes, owner: str, field: str) -> bytes | None:
    """Open what `encrypt` made; None where it is not whole, from elsewhere, or under another key."""
    from Crypto.Cipher import AES  # noqa: PLC0415 - only who decrypts pays for it

    if len(stored) < len(_VERSION) + _NONCE + _TAG or stored[:1] != _VERSION:
        return None
    cipher = AES.new(key, AES.MODE_GCM, nonce=stored[1 : 1 + _NONCE])
    cipher.update(_bound_to(owner, field))
    try:
        return cipher.decrypt_and_verify(stored[1 + _NONCE : -_TAG], stored[-_TAG:])
    except ValueError:
        return None


def _bound_to(owner: str, field: str) -> bytes:
    return f"upstack content 1\0{owner}\0{field}".encode()
