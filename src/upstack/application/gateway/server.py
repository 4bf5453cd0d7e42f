"""The gateway's process: configuration, ledger, listener, signals, reload, drain."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import uvicorn

from upstack.application.gateway.app import build_app
from upstack.application.gateway.gateway import Gateway
from upstack.application.gateway.hot import HotProtocol, hot_protocol
from upstack.application.gateway.limits.source import MeterSource
from upstack.application.gateway.proofs import Proofs
from upstack.application.gateway.reloader import Reloader
from upstack.application.gateway.retention import keep_no_longer
from upstack.application.gateway.setup import Listening, Options, read_config, state_of
from upstack.application.gateway.shadows import Shadows
from upstack.application.gateway.together import Place, Together
from upstack.core.clock import SystemClock
from upstack.core.config import ledger_place
from upstack.core.errors import ConfigError
from upstack.core.slots import Slots, make_memory
from upstack.core.store.client import LedgerClient
from upstack.core.store.ids import ReceiptIds
from upstack.core.store.places import shown
from upstack.core.telemetry import configure, fault, log, watch
from upstack.core.types import STUDENT
from upstack.foundation.backends.openai import OpenAIBackend
from upstack.foundation.backends.student import StudentBackend
from upstack.foundation.prices import load_list
from upstack.foundation.upstream.origin import authority

if TYPE_CHECKING:
    from upstack.foundation.backends.base import Backend
    from upstack.foundation.backends.replay import ReplayBackend

TICK = 0.5  # seconds between looks at silent callers and at the configuration file
PRICE_CHECK = 60  # seconds between looks at prices that change with the hour or the date
BACKLOG = 2048  # connections waiting to be accepted
GC_THRESHOLD = (20_000, 20, 20)  # young objects of a request die by their reference counts
GOODBYE = 3  # seconds connections may take to close once nothing is in flight


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
    configure(config.server.log, config.server.log_level)
    watch(asyncio.get_running_loop())
    stop = stop or asyncio.Event()
    replay = _replay(options)
    state = state_of(config, 1, replay)
    port = config.server.port if place is None else place.port
    listener = listen(config.server.host, port, shared=place is not None)
    ledger = LedgerClient(
        ledger_place(config.server.ledger),
        limit_bytes=config.server.ledger_queue_bytes,
        door=None if place is None else place.door,
        keystore=config.server.keystore,
    )
    backends: dict[str, Backend] = {"openai": OpenAIBackend(), STUDENT: StudentBackend()}
    if replay is not None:
        backends["replay"] = replay
        log(f"replaying {options.replay}: {replay.not_called(state.providers)}")
    try:
        if config.server.receipts != "off":
            await ledger.start()
        slots = Slots(make_memory(1), 1) if place is None else Slots(place.memory, place.row)
        source = MeterSource(
            slots, ledger, recorded=config.server.receipts != "off", leads=place is None or place.row == 1
        )
        meters = source.meters(config, state.tasks, await source.spent(), anew=True)
        gateway = Gateway(
            config, state, ledger, backends, meters, clock=SystemClock(), new_id=ReceiptIds(), rng=random.Random()
        )
        reloader = Reloader(gateway, options, replay, source)
        if place is not None:
            reloader.together = Together(gateway, place, slots)
            asyncio.get_running_loop().add_reader(place.leash, stop.set)
        gateway.checking = Shadows(gateway)
        proofs = Proofs(gateway, leads=place is None or place.row == 1)
        await proofs.look()
        keepers = [asyncio.ensure_future(source.keep_leases()), asyncio.ensure_future(proofs.keep())]
        if place is None or place.row == 1:
            keepers.append(asyncio.ensure_future(keep_no_longer(gateway)))
        try:
            await _run(gateway, reloader, listener, ready, stop)
        finally:
            for keeper in keepers:
                keeper.cancel()
    finally:
        listener.close()
        for backend in backends.values():
            await backend.close()
        await ledger.close()


async def _run(
    gateway: Gateway,
    reloader: Reloader,
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


async def _watch(protocol: type[HotProtocol], reloader: Reloader) -> None:
    """Look at the configuration file and at silent callers, for ever: no error of ours may end that."""
    while True:
        await asyncio.sleep(TICK)
        try:
            reloader.look()
        except Exception as error:  # noqa: BLE001 - the process's edge
            fault("the look at the configuration file failed; going on", error)
        now = time.monotonic()
        for connection in list(protocol.open_protocols):
            try:
                connection.overdue(now)
            except Exception as error:  # noqa: BLE001 - the process's edge, and others wait for their turn
                fault("the look at a silent caller failed; going on", error)
                connection.transport.abort()


async def _keep_prices(gateway: Gateway) -> None:
    """Load the price list beside the first requests, not in front of one, then follow the prices that change."""
    if any(provider.catalog != "" for provider in gateway.state.providers.values()):
        try:
            await asyncio.get_running_loop().run_in_executor(None, load_list)
        except Exception as error:  # noqa: BLE001 - the process's edge
            fault("the price list could not be loaded; going on", error)
    while True:
        try:
            gateway.reprice(datetime.now(UTC))
        except Exception as error:  # noqa: BLE001 - the process's edge
            fault("repricing failed; going on", error)
        await asyncio.sleep(PRICE_CHECK)


def _stop_signal(server: uvicorn.Server, stopping: asyncio.Event) -> None:
    if stopping.is_set():  # asked twice: at once
        server.should_exit = server.force_exit = True
    stopping.set()


def _replay(options: Options) -> ReplayBackend | None:
    if options.replay is None:
        return None
    from upstack.foundation.backends.replay import ReplayBackend  # noqa: PLC0415 - only `--replay` needs it

    return ReplayBackend(options.replay, speed=options.speed)


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
