"""A gateway in this process for the duration of one call: the same `serve`, on a free loopback port."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from upstack.application.gateway.server import serve
from upstack.application.gateway.setup import Listening, Options
from upstack.cli.options import config_path, tidy


@contextlib.asynccontextmanager
async def own_gateway(config: Path | None) -> AsyncIterator[str]:
    """Serve in this process, on a free loopback port; Ctrl-C cancels the caller, not a drain."""
    options = Options(config_path(config), server={"host": "127.0.0.1", "port": 0})
    listening: asyncio.Future[Listening] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    serving = asyncio.ensure_future(serve(options, listening.set_result, stop))
    try:
        either: list[asyncio.Future[Any]] = [serving, listening]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving  # which raises why
        caller = asyncio.current_task()
        assert caller is not None  # noqa: S101 - for mypy: this is a coroutine
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, caller.cancel)
        yield tidy(listening.result().url)
    finally:
        stop.set()  # it drains, and writes every receipt
        if not listening.done():
            serving.cancel()
        await serving
