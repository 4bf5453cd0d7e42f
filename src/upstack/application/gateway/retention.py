"""Retention beside a gateway that serves: once an hour a process of its own removes what is too old."""

from __future__ import annotations

import asyncio

import msgspec

from upstack.application.gateway.beside import beside
from upstack.application.gateway.gateway import Gateway
from upstack.core.config import ServerConfig, ledger_place
from upstack.core.errors import UpstackError
from upstack.core.telemetry import log

FIRST_S = 15.0  # after the start
EVERY_S = 3600.0


async def keep_no_longer(gateway: Gateway) -> None:
    """Have removed what the configuration says, as it is at the time; for ever."""
    await asyncio.sleep(FIRST_S)
    while True:
        server = gateway.limits
        if (server.retention_days or server.content_retention_days) and gateway.receipts != "off":
            try:
                await _remove(server)
            except (OSError, UpstackError, msgspec.DecodeError) as error:
                log(f"retention could not be started, and is tried again in an hour: {error}")
        await asyncio.sleep(EVERY_S)


async def _remove(server: ServerConfig) -> None:
    retention = {"rows": server.retention_days, "contents": server.content_retention_days}
    job = {"place": ledger_place(server.ledger), "keystore": server.keystore, "retention": retention}
    async with beside("upstack.core.store.keeping") as (stdin, stdout):  # whatever is half done verifies
        stdin.write(msgspec.json.encode(job) + b"\n")  # a place may hold a password: no argument
        said = await stdout.readline()
    done = msgspec.json.decode(said) if said else {"error": "its process ended without a word"}
    if done["error"] is not None:
        log(f"retention failed, and is tried again in an hour: {done['error']}")
    elif done["rows"] or done["contents"]:
        log(f"retention removed {done['rows']:,} receipts and outcomes, and the contents of {done['contents']:,} more")
