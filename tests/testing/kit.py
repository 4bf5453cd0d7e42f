"""One request to a fake provider, in one line."""

from __future__ import annotations

import asyncio
from typing import Any

from upstack.testing import FakeProvider, RawClient, RawResponse

TEXT = "one two three four five six"


def chat(text: str = TEXT, **fields: Any) -> dict[str, Any]:
    """The body of a chat request of one user message."""
    return {"model": "echo-1", "messages": [{"role": "user", "content": text}], **fields}


def ask_raw(provider: FakeProvider, body: Any, *, timeout_s: float = 5.0, headers: str = "") -> RawResponse:
    """Send a request on a connection of its own and read the answer as it is on the wire."""

    async def go() -> RawResponse:
        async with RawClient(provider.port, timeout_s=timeout_s) as client:
            return await client.ask(body, headers=headers)

    return asyncio.run(go())
