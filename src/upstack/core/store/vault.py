"""The keys that a writer encrypts under: fetched from the keystore, and made there, as they are needed.

A key is durable before anything is encrypted under it. Destroyed by another process it is not used again: before each
batch a look at the keystore shows whether it has changed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable

from upstack.core.store.cipher import encrypt
from upstack.core.store.keystore import ContentKey, Keystore, scope_of

_MOST_KEYS = 10_000  # at hand; with more, all are fetched anew

Elsewhere = Callable[[str | None], str | None]  # of a subject, None: of all: a key that the ledger has contents under


class Vault:
    """Keys of one keystore. LedgerError where it cannot be used."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._keystore: Keystore | None = None
        self._keys: dict[str, ContentKey] = {}
        self._now = 0.0  # of the batch: its month has one key

    def ready(self, subjects: Iterable[str | None], elsewhere: Elsewhere) -> None:
        """Have the keys of these subjects at hand; `elsewhere` says which keys the ledger knows, ours or not."""
        keystore = self._opened(elsewhere)
        if keystore.changed() or len(self._keys) > _MOST_KEYS:
            self._keys.clear()
        self._now = now = time.time()
        wanted = {scope_of(subject, now): subject for subject in subjects}
        missing = [scope for scope in wanted if not self._fetch(keystore, scope)]
        if not missing:
            return
        for scope in missing:
            subject = wanted[scope]
            other = None if subject is None else elsewhere(subject)
            if other is not None:
                words = f"has not got {other} (lost, or being erased), which contents of a subject are under: a new one"
                print(f"upstack: the keystore {self._path} {words}", file=sys.stderr, flush=True)  # noqa: T201
        keystore.add(missing)
        for scope in missing:
            self._fetch(keystore, scope)

    def encrypt(self, subject: str | None, content: bytes, owner: str, field: str) -> tuple[bytes, str]:
        """Encrypt under the key of a subject, which is at hand: what is stored, and the key's id."""
        key = self._keys[scope_of(subject, self._now)]
        return encrypt(key.key, content, owner, field), key.id

    def _fetch(self, keystore: Keystore, scope: str) -> bool:
        if scope not in self._keys:
            found = keystore.find(scope)
            if found is None:
                return False
            self._keys[scope] = found
        return True

    def _opened(self, elsewhere: Elsewhere) -> Keystore:
        if self._keystore is not None and not self._keystore.stands():
            self._keystore.close()
            self._keystore = None
            self._keys.clear()
        if self._keystore is None:
            self._keystore = self._open(elsewhere)
        return self._keystore

    def _open(self, elsewhere: Elsewhere) -> Keystore:
        """Open the keystore; a new one only for a ledger that has nothing encrypted yet."""
        other = elsewhere(None)
        return Keystore(self._path, write=True, new=other is None)
