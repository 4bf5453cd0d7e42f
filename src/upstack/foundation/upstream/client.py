"""The client: its pools by origin, its sweeper, and the proxies of its environment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from upstack.core.errors import Failure, SupplyError
from upstack.core.types import Tls
from upstack.foundation.upstream.origin import Origin
from upstack.foundation.upstream.pool import Limits, Pool
from upstack.foundation.upstream.proxies import Proxies
from upstack.foundation.upstream.sweeper import Sweeper
from upstack.foundation.upstream.tls import Contexts

_PORTS = {"http": 80, "https": 443}


class Client:
    """Gives pools for URLs. All of it belongs to one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Callable[[], float] | None = None,
        environ: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Read the proxy variables of `environ` (default: the process's). `clock`: default is the loop's."""
        self._sweeper = Sweeper(loop, clock or loop.time)
        self._proxies = Proxies(os.environ if environ is None else environ)
        self._contexts = Contexts()
        self._limits = limits or Limits()
        self._pools: dict[Origin, Pool] = {}

    def pool(self, url: str, tls: Tls) -> Pool:
        """Give the pool for a URL's origin; raises `SupplyError` (refused) where there can be none."""
        origin = self._origin(url, tls)
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = Pool(origin, self._sweeper, self._contexts, self._limits)
            self._sweeper.idlers.append(pool)
        return pool

    async def close(self) -> None:
        """Cancel calls in flight and close all connections."""
        for call in list(self._sweeper.calls):
            call.cancel()
        self._sweeper.stop()
        for pool in self._pools.values():
            await pool.close()

    def _origin(self, url: str, tls: Tls) -> Origin:
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").encode("idna").decode(), parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):
            host = ""
        if not host:
            message = "The provider's base_url is no usable URL; write http(s)://host[:port]/path"
            raise SupplyError(Failure.REFUSED, message)
        proxy = self._proxies.find(parts.scheme, host, port)
        if parts.scheme == "http":
            return Origin("http", host, port, proxy=proxy)
        return Origin("https", host, port, tls, proxy)
