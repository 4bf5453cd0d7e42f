"""The gateway's process: configuration, ledger, listener, signals, reload, drain."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import uvicorn
from msgspec.structs import replace

from upstack.application.gateway.app import build_app
from upstack.application.gateway.gateway import Gateway
from upstack.application.gateway.hot import HotProtocol, hot_protocol
from upstack.application.gateway.limits.meters import Meters
from upstack.application.gateway.state import build_state
from upstack.application.gateway.together import Place, Together
from upstack.core.clock import SystemClock
from upstack.core.config import Config, ledger_place, load_config
from upstack.core.errors import ConfigError, UpstackError
from upstack.core.slots import Slots, make_memory
from upstack.core.store.client import LedgerClient
from upstack.core.store.ids import ReceiptIds
from upstack.core.store.places import shown
from upstack.core.store.reading import spent_by
from upstack.core.store.spending import Spent
from upstack.core.types import State
from upstack.foundation.backends.openai import OpenAIBackend
from upstack.foundation.prices import load_list, load_prices_toml
from upstack.foundation.upstream.origin import authority, is_loopback

if TYPE_CHECKING:
    from upstack.foundation.backends.base import Backend
    from upstack.foundation.backends.replay import ReplayBackend

TICK = 0.5  # seconds between looks at silent callers and at the configuration file
PRICE_CHECK = 60  # seconds between looks at prices that change with the hour or the date
BACKLOG = 2048  # connections waiting to be accepted
GC_THRESHOLD = (20_000, 20, 20)  # young objects of a request die by their reference counts
GOODBYE = 3  # seconds connections may take to close once nothing is in flight
SETTLE = 0.05  # seconds a changed configuration file must have stood still before it is read
SETTLE_LIMIT = 5.0  # seconds it is waited for


class Options(msgspec.Struct, frozen=True):
    """What the command line adds to the file."""

    config: Path | None = None
    replay: Path | None = None  # recorded traffic to answer from
    speed: float = 0.0  # of replayed latency: 0 none, 1 as recorded
    prices: Path | None = None
    server: Mapping[str, Any] = {}  # members of [server] that flags override


class Listening(msgspec.Struct, frozen=True):
    """What a gateway says of itself once it can be connected to."""

    url: str  # with /v1
    providers: list[str]
    receipts: str
    ledger: str | None  # None: nothing is recorded


def read_config(options: Options, environ: Mapping[str, str] = os.environ) -> Config:
    """Default < file < environment < flag. Raises ConfigError."""
    config = load_config(options.config, environ)
    if options.prices is not None:
        config = replace(config, prices={**config.prices, **load_prices_toml(options.prices)})
    config = replace(config, server=replace(config.server, **dict(options.server)))
    if not config.keys:
        _only_loopback(config.server.host)
    return config


def announce(listening: Listening) -> None:
    """Tell the operator."""
    log(f"listening on {listening.url}")
    log(f"providers: {', '.join(listening.providers) or 'none found; `upstack doctor` says where it looked'}")
    kept = "off: nothing is recorded" if listening.ledger is None else f"{listening.receipts}, in {listening.ledger}"
    log(f"receipts: {kept}")


async def serve(
    options: Options,
    ready: Callable[[Listening], None] = announce,
    stop: asyncio.Event | None = None,
    place: Place | None = None,
) -> None:
    """Run the gateway until SIGTERM, SIGINT or `stop`. Raises ConfigError or LedgerError where it cannot start.

    `place` is its place among several workers.
    """
    config = read_config(options)
    stop = stop or asyncio.Event()
    replay = _replay(options)
    state = state_of(config, 1, replay)
    port = config.server.port if place is None else place.port
    listener = listen(config.server.host, port, shared=place is not None)
    ledger = LedgerClient(
        ledger_place(config.server.ledger),
        limit_bytes=config.server.ledger_queue_bytes,
        door=None if place is None else place.door,
    )
    backends: dict[str, Backend] = {"openai": OpenAIBackend()}
    if replay is not None:
        backends["replay"] = replay
        log(f"replaying {options.replay}: {replay.not_called(state.providers)}")
    try:
        if config.server.receipts != "off":
            await ledger.start()
        slots = Slots(make_memory(1), 1) if place is None else Slots(place.memory, place.row)
        meters = Meters(config, state.tasks, slots, await _spent(config), anew=True)
        gateway = Gateway(
            config, state, ledger, backends, meters, clock=SystemClock(), new_id=ReceiptIds(), rng=random.Random()
        )
        reloader = _Reloader(gateway, options, replay, slots)
        if place is not None:
            reloader.together = Together(gateway, place, slots)
            asyncio.get_running_loop().add_reader(place.leash, stop.set)
        await _run(gateway, reloader, listener, ready, stop)
    finally:
        listener.close()
        for backend in backends.values():
            await backend.close()
        await ledger.close()


async def _run(
    gateway: Gateway,
    reloader: _Reloader,
    listener: socket.socket,
    ready: Callable[[Listening], None],
    stopping: asyncio.Event,
) -> None:
    protocol = hot_protocol(gateway)
    server = _Server(
        uvicorn.Config(
            build_app(gateway, reloader.reload_all, reloader.together),
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GOODBYE,
            backlog=BACKLOG,
        )
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_signal, server, stopping)
    loop.add_signal_handler(signal.SIGHUP, reloader.reload_soon)
    watchers = [
        asyncio.ensure_future(_drain(gateway, server, stopping)),
        asyncio.ensure_future(_watch(protocol, reloader)),
        asyncio.ensure_future(_keep_prices(gateway)),
    ]
    gc.collect()
    gc.freeze()  # what is there now stays; collecting it over and over is a few percent of the load
    gc.set_threshold(*GC_THRESHOLD)
    listener.listen(BACKLOG)  # whoever reads the announcement can connect
    try:
        ready(_listening(gateway, listener))
        await server.serve(sockets=[listener])
    finally:
        for watcher in watchers:
            watcher.cancel()


def run(options: Options, ready: Callable[[Listening], None] = announce, place: Place | None = None) -> None:
    """Run `serve` on an event loop of its own: uvloop where there is one."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(options, ready, place=place))


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: ours drain first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Reloader:
    """Swaps the state when the configuration changes; a broken file is refused and the old state stays."""

    def __init__(self, gateway: Gateway, options: Options, replay: ReplayBackend | None, slots: Slots) -> None:
        self._gateway = gateway
        self._options = options
        self._replay = replay
        self._slots = slots
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
            await self._settle()
            spent = await _spent(gateway.config)
            config = read_config(self._options)  # from here to the swap without a wait: no reload comes between
            self._keep_what_cannot_change(config)
            state = state_of(config, gateway.state.generation + 1, self._replay)
        except UpstackError:
            gateway.metrics.reloads_refused += 1
            raise
        gateway.swap(config, state, Meters(config, state.tasks, self._slots, spent))
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

    async def _settle(self) -> None:
        """Wait until nobody is writing the file: cut between two tables it would pass for a whole one."""
        deadline = time.monotonic() + SETTLE_LIMIT
        while True:
            self._seen = self._stamp()
            await asyncio.sleep(SETTLE)
            if self._seen == self._stamp():
                break
            if time.monotonic() > deadline:
                raise ConfigError(f"{self._options.config}: still being written after {SETTLE_LIMIT:.0f} s")
        if self._seen is not None and self._seen[1] == 0:
            raise ConfigError(f"{self._options.config}: empty, as if cut short while it was written")

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
        for name in ("host", "port", "workers", "ledger", "ledger_queue_bytes"):
            if getattr(old, name) != getattr(new, name):
                raise ConfigError(f"server.{name} cannot change while serving: restart, or set it back")
        if "off" in {old.receipts, new.receipts} and old.receipts != new.receipts:
            raise ConfigError('server.receipts = "off" cannot change while serving: restart, or set it back')


async def _spent(config: Config) -> dict[str, Spent]:
    """What the ledger knows to be spent."""
    if config.server.receipts == "off":
        return {}
    return await asyncio.to_thread(spent_by, ledger_place(config.server.ledger), time.time())


async def _drain(gateway: Gateway, server: uvicorn.Server, stopping: asyncio.Event) -> None:
    """Once told to stop: take no more, let what is in flight finish within the limit, then stop."""
    await stopping.wait()
    gateway.draining = True
    deadline = time.monotonic() + gateway.limits.drain
    while gateway.live and time.monotonic() < deadline:  # noqa: ASYNC110 - an event would cost every request
        await asyncio.sleep(0.02)
    for exchange in list(gateway.live):
        exchange.expire()
    server.should_exit = True


async def _watch(protocol: type[HotProtocol], reloader: _Reloader) -> None:
    """Look at the configuration file and at silent callers, for ever: no error of ours may end that."""
    while True:
        await asyncio.sleep(TICK)
        try:
            reloader.look()
        except Exception as error:  # noqa: BLE001 - the process's edge
            _tell("the look at the configuration file", error)
        now = time.monotonic()
        for connection in list(protocol.open_protocols):
            try:
                connection.overdue(now)
            except Exception as error:  # noqa: BLE001 - the process's edge, and others wait for their turn
                _tell("the look at a silent caller", error)
                connection.transport.abort()


async def _keep_prices(gateway: Gateway) -> None:
    """Load the price list beside the first requests, not in front of one, then follow the prices that change."""
    if any(provider.catalog != "" for provider in gateway.state.providers.values()):
        try:
            await asyncio.get_running_loop().run_in_executor(None, load_list)
        except Exception as error:  # noqa: BLE001 - the process's edge
            _tell("loading the price list", error)
    while True:
        try:
            gateway.reprice(datetime.now(UTC))
        except Exception as error:  # noqa: BLE001 - the process's edge
            _tell("repricing", error)
        await asyncio.sleep(PRICE_CHECK)


def _tell(what: str, error: Exception) -> None:
    """Log an error that nobody expected by its kind and place; its text may hold anything."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    log(f"{what} failed: {type(error).__name__} in {place.filename}:{place.lineno}; going on")


def _stop_signal(server: uvicorn.Server, stopping: asyncio.Event) -> None:
    if stopping.is_set():  # asked twice: at once
        server.should_exit = server.force_exit = True
    stopping.set()


def state_of(config: Config, generation: int, replay: ReplayBackend | None) -> State:
    """Lay out the state of a configuration."""
    if replay is None:
        return build_state(config, os.environ, generation)
    from upstack.foundation.backends.replay import replay_providers  # noqa: PLC0415 - only `--replay` needs it

    return build_state(config, os.environ, generation, replayed=replay_providers(replay), models=replay.models)


def _replay(options: Options) -> ReplayBackend | None:
    if options.replay is None:
        return None
    from upstack.foundation.backends.replay import ReplayBackend  # noqa: PLC0415 - only `--replay` needs it

    return ReplayBackend(options.replay, speed=options.speed)


def _only_loopback(host: str) -> None:
    if not is_loopback(host):
        raise ConfigError(
            f'host "{host}": without keys only loopback (127.0.0.1, ::1, localhost) is served, as everybody who '
            "reaches the port could spend your money; make keys with `upstack keys new NAME`, or use a tunnel (ssh -L)"
        )


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Take a port, which our other processes may take too where it is `shared`; ConfigError where it is not free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else "ports lie in 0 to 65535"
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            reason = f"{reason}. Is another gateway running? Try --port"
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}") from None
    listener.setblocking(False)
    return listener


def _listening(gateway: Gateway, listener: socket.socket) -> Listening:
    host, port = listener.getsockname()[:2]
    ledger = None if gateway.receipts == "off" else shown(ledger_place(gateway.limits.ledger))
    url = f"http://{authority(host, port)}/v1"
    return Listening(url, sorted(gateway.state.providers), gateway.receipts, ledger)


def log(message: str) -> None:
    """Tell the operator: one line on standard error, never content or secrets."""
    print(f"upstack: {message}", file=sys.stderr, flush=True)  # noqa: T201 - the process's own log
