"""A gateway in this process for the duration of one call: the same `serve`, on a free loopback port."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from upstack.application.gateway.server import Options, serve
from upstack.cli.options import config_path
from upstack.core.errors import UpstackError

START_S = 40.0  # the ledger's writer may wait for the one of a gateway that has just ended


@contextlib.asynccontextmanager
async def own_gateway(config: Path | None) -> AsyncIterator[str]:
    """Serve in this process, on a free loopback port; Ctrl-C cancels the caller, not a drain."""
    port = _free_port()
    options = Options(config_path(config), server={"host": "127.0.0.1", "port": port})
    base = f"http://127.0.0.1:{port}"
    serving = asyncio.ensure_future(serve(options, announce=False))
    try:
        await _until_ready(serving, port)
    except BaseException:
        serving.cancel()
        raise
    caller = asyncio.current_task()
    if caller is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, caller.cancel)
    try:
        yield base
    finally:
        if not serving.done():
            signal.raise_signal(signal.SIGTERM)  # the gateway's own way to end: it drains, and writes every receipt
        await serving


async def _until_ready(serving: asyncio.Future[None], port: int) -> None:
    """Wait until it listens; raises what it raised."""
    deadline = asyncio.get_running_loop().time() + START_S
    while asyncio.get_running_loop().time() < deadline:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.wait([serving], timeout=0.01)
        if serving.done():
            serving.result()
            break
    raise UpstackError("the gateway did not start; `upstack doctor` may say why")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
