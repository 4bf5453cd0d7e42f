"""Takes a changed configuration while the gateway serves."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from upstack.application.gateway.gateway import Gateway
from upstack.application.gateway.limits.source import MeterSource
from upstack.application.gateway.setup import Options, read_config, state_of
from upstack.application.gateway.together import Together
from upstack.core.config import Config
from upstack.core.errors import ConfigError, UpstackError
from upstack.core.store.spending import Spent
from upstack.core.telemetry import log

if TYPE_CHECKING:
    from upstack.foundation.backends.replay import ReplayBackend

SETTLE = 0.05  # seconds a changed configuration file must have stood still before it is read
SETTLE_LIMIT = 5.0  # seconds it is waited for


class Reloader:
    """Swaps the state when the configuration changes; a broken file is refused and the old state stays."""

    def __init__(self, gateway: Gateway, options: Options, replay: ReplayBackend | None, source: MeterSource) -> None:
        self._gateway = gateway
        self._options = options
        self._replay = replay
        self._source = source
        self._seen = self._stamp()
        self._soon: asyncio.Future[None] | None = None  # a reload that has not read the file yet
        self.together: Together | None = None  # the other workers

    async def reload_all(self) -> int:
        """Reload as `reload` does, and have the other workers do so too."""
        generation = await self.reload()
        if self.together is not None:
            self.together.reloaded()
        return generation

    async def reload(self) -> int:
        """Read the file again and swap; returns the new generation. Raises ConfigError and changes nothing."""
        gateway = self._gateway
        try:
            spent = await self._settle()
            config = read_config(self._options)  # from here to the swap without a wait: no reload comes between
            self._keep_what_cannot_change(config)
            state = state_of(config, gateway.state.generation + 1, self._replay)
        except UpstackError:
            gateway.metrics.reloads_refused += 1
            raise
        gateway.swap(config, state, self._source.meters(config, state.tasks, spent))
        return state.generation

    def reload_soon(self) -> None:
        """Reload from a signal or the watcher: the result goes to the log. One that is about to read is enough."""
        if self._soon is None:
            self._soon = asyncio.ensure_future(self._reload_and_tell())

    def look(self) -> None:
        """Reload if the file has changed since it was last read, or another worker was asked to."""
        asked = self.together is not None and self.together.look()
        if asked or self._stamp() != self._seen:
            self.reload_soon()

    async def _reload_and_tell(self) -> None:
        try:
            log(f"configuration reloaded, generation {await self.reload()}")
        except UpstackError as error:
            log(f"configuration NOT reloaded, the old one stays: {error.message}")
        finally:
            self._soon = None

    async def _settle(self) -> dict[str, Spent]:
        """Wait until nobody is writing the file: cut between two tables it would pass for a whole one.

        Returns what was spent, which takes a while to find out, too.
        """
        deadline = time.monotonic() + SETTLE_LIMIT
        while True:
            self._seen = self._stamp()
            await asyncio.sleep(SETTLE)
            spent = await self._source.spent()
            if self._seen == self._stamp():
                break
            if time.monotonic() > deadline:
                raise ConfigError(f"{self._options.config}: still being written after {SETTLE_LIMIT:.0f} s")
        if self._seen is not None and self._seen[1] == 0:
            raise ConfigError(f"{self._options.config}: empty, as if cut short while it was written")
        return spent

    def _stamp(self) -> tuple[int, int, int] | None:
        if self._options.config is None:
            return None
        try:
            found = self._options.config.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _keep_what_cannot_change(self, config: Config) -> None:
        old, new = self._gateway.config.server, config.server
        for name in ("host", "port", "workers", "ledger", "keystore", "ledger_queue_bytes"):
            if getattr(old, name) != getattr(new, name):
                raise ConfigError(f"server.{name} cannot change while serving: restart, or set it back")
        if "off" in {old.receipts, new.receipts} and old.receipts != new.receipts:
            raise ConfigError('server.receipts = "off" cannot change while serving: restart, or set it back')
