"""TLS contexts, made when first needed and kept for as long as their files do not change."""

from __future__ import annotations

import asyncio
import contextlib
import ssl  # costs nothing here: asyncio has imported it already
from pathlib import Path

from upstack.core.errors import Failure, SupplyError
from upstack.core.types import Tls


class Contexts:
    """One client context per way of checking certificates. Certificates and host names are always checked."""

    def __init__(self) -> None:
        """Start empty: loading authorities takes some 40 ms, so it waits for the first connection."""
        self._kept: dict[Tls, tuple[tuple[int, ...], ssl.SSLContext]] = {}
        self._loading = asyncio.Lock()

    async def load(self, tls: Tls) -> ssl.SSLContext:
        """Do as `get` does, but read files in a thread: other calls go on meanwhile."""
        async with self._loading:  # many connections may open at once; one of them loads
            context = self._fresh(tls)
            if context is None:
                context = await asyncio.get_running_loop().run_in_executor(None, self.get, tls)
            return context

    def get(self, tls: Tls) -> ssl.SSLContext:
        """Give the context for `tls`; raises `SupplyError` (refused) where a file cannot be used."""
        context = self._fresh(tls)
        if context is None:
            try:
                stamp, context = _stamp(tls), _make(tls)
            except OSError as error:  # ssl.SSLError is one
                names = ", ".join(_paths(tls)) or "the system's authorities"
                reason = getattr(error, "reason", None) or error.strerror or "unusable"
                raise SupplyError(Failure.REFUSED, f"TLS files cannot be used ({names}): {reason}") from error
            self._kept[tls] = (stamp, context)
        return context

    def _fresh(self, tls: Tls) -> ssl.SSLContext | None:
        """Give the kept context, unless a file has changed: client certificates may be renewed daily."""
        stamp, context = self._kept.get(tls, (None, None))
        with contextlib.suppress(OSError):
            return context if stamp == _stamp(tls) else None
        return None


def _paths(tls: Tls) -> list[str]:
    return [path for path in (tls.ca_bundle, tls.client_cert, tls.client_key) if path is not None]


def _stamp(tls: Tls) -> tuple[int, ...]:
    return tuple(Path(path).stat().st_mtime_ns for path in _paths(tls))


def _make(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca_bundle)
    context.set_alpn_protocols(["http/1.1"])
    if tls.client_cert is not None:
        # Without a password OpenSSL would ask for one on the terminal and block; so an encrypted key is an error.
        context.load_cert_chain(tls.client_cert, tls.client_key, password="")
    return context
