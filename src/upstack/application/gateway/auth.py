"""Who asks: virtual keys, from a request's headers to the caller they stand for.

A key is 256 random bits, so its plain SHA-256 gives nothing away. The configuration holds that hash alone.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec
from starlette.requests import Request as HttpRequest

from upstack.core.config import Config, KeyConfig
from upstack.core.errors import RequestError
from upstack.core.types import Capture

CALLER = "upstack.caller"  # where an ASGI scope has it
Role = Literal["app", "feedback", "reviewer", "admin"]
PREFIX = "sk-upstack-"  # clients of OpenAI's expect one that begins with sk-

_HEADERS = (b"authorization", b"x-api-key", b"api-key")  # OpenAI's, Anthropic's and Azure's clients
_LONGEST = 512  # bytes of a key


class Caller(msgspec.Struct, frozen=True):
    """A virtual key as far as a request must know it."""

    name: str
    role: Role
    team: str | None = None
    allowed: frozenset[str] | None = None  # names that may be asked for; None: all
    capture: Capture | None = None


class _Entry(msgspec.Struct, frozen=True):
    digest: bytes
    caller: Caller
    until: float  # Unix seconds


class Keys:
    """All virtual keys of a configuration. Never changed; a reload makes new ones."""

    def __init__(self, keys: Mapping[str, KeyConfig]) -> None:
        self._entries: dict[bytes, _Entry] = {}
        for name, key in keys.items():
            caller = _caller(name, key)
            end = _seconds(key.expires)
            self._add(key.hash, caller, end)
            if key.old_hash is not None:
                self._add(key.old_hash, caller, min(end, _seconds(key.old_until)))
        self.has_admin = any(key.role == "admin" for key in keys.values())

    @classmethod
    def of(cls, config: Config) -> Keys | None:
        """Those of a configuration; None where it has none, and everybody on this machine is served."""
        return cls(config.keys) if config.keys else None

    def caller(self, headers: Mapping[bytes, bytes], now: float) -> Caller:
        """Who sent `headers` (names in lower case) at `now` (Unix seconds); RequestError (401) where nobody known."""
        key = _presented(headers)
        if key is None:
            message = "Send a key: Authorization: Bearer KEY (`upstack` takes it from UPSTACK_API_KEY)"
            raise RequestError(message, status=401, code="missing_api_key")
        digest = hashlib.sha256(key).digest()
        entry = self._entries.get(digest)
        if entry is None or not hmac.compare_digest(entry.digest, digest):
            raise RequestError("The key is not known here", status=401, code="invalid_api_key")
        if now >= entry.until:
            raise RequestError(f"The key {entry.caller.name} has expired", status=401, code="expired_api_key")
        return entry.caller

    def _add(self, text: str, caller: Caller, until: float) -> None:
        digest = bytes.fromhex(text.removeprefix("sha256:"))
        self._entries[digest] = _Entry(digest, caller, until)


def new_key() -> tuple[str, str]:
    """Make a key, which is shown once, and its hash for the configuration."""
    key = PREFIX + base64.urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode()
    return key, "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def may_ask(caller: Caller | None, model: str) -> None:
    """Raise RequestError (403) where the caller may not ask for `model`."""
    if caller is None:
        return
    if caller.role != "app":
        message = f"The key {caller.name} has the role {caller.role}, which asks no models"
        raise RequestError(message, status=403, code="key_not_allowed")
    if caller.allowed is not None and model not in caller.allowed:
        names = ", ".join(sorted(caller.allowed))
        message = f"The key {caller.name} may ask for {names} only"
        raise RequestError(message, status=403, code="model_not_allowed", param="model")


def caller_of(request: HttpRequest) -> Caller | None:
    """Who sent a request of the application; None where there are no keys."""
    caller: Caller | None = request.scope[CALLER]
    return caller


def may_see(caller: Caller | None, key: str | None) -> bool:
    """Say whether the caller may see a receipt that `key` asked for, and tell what became of it."""
    return caller is None or caller.role != "app" or caller.name == key


def _presented(headers: Mapping[bytes, bytes]) -> bytes | None:
    for name in _HEADERS:
        value = headers.get(name)
        if value is not None:
            if name == b"authorization":
                scheme, _, value = value.partition(b" ")
                if scheme.lower() != b"bearer":
                    continue
            value = value.strip()
            return value if 0 < len(value) <= _LONGEST else b"-"
    return None


def _caller(name: str, key: KeyConfig) -> Caller:
    allowed = frozenset([*(f"task/{task}" for task in key.tasks), *key.routes])
    return Caller(name, key.role, key.team, allowed or None, key.capture)


def _seconds(moment: datetime | None) -> float:
    return math.inf if moment is None else moment.timestamp()
