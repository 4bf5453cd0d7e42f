"""The gateway that a command speaks to: one that runs, else one of its own for as long as the command takes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from upstack.application.client import look, unreachable
from upstack.cli.options import config_path, gateway_url, tidy
from upstack.core.errors import UpstackError


def running(url: str | None, config: Path | None) -> str | None:
    """Where a gateway runs; None where none does and none was named. UpstackError where one runs and takes nothing."""
    base = gateway_url(url, config)
    found, words = look(base)
    if found == "not ready":
        raise UpstackError(f"the gateway at {base} takes no requests now: {words}; try again in a moment")
    if found != "ready" and url is not None:
        raise unreachable(base)
    return base if found == "ready" else None


@contextlib.asynccontextmanager
async def one_or_own(base: str | None, config: Path | None) -> AsyncIterator[str]:
    """Give the gateway at `base`; without one serve in this process, on a free loopback port."""
    if base is not None:
        yield base
        return
    from upstack.application.gateway.server import serve  # noqa: PLC0415 - a server is only loaded where none runs
    from upstack.application.gateway.setup import Listening, Options  # noqa: PLC0415

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
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, caller.cancel)  # not a drain
        yield tidy(listening.result().url)
    finally:
        stop.set()  # it drains, and writes every receipt
        if not listening.done():
            serving.cancel()
        await serving
