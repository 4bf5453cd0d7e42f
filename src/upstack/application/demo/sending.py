"""The demo's client: every row through the official `openai` client, as an application would send it."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from upstack.application.demo.scenario import TASK
from upstack.core.errors import ConfigError
from upstack.core.traffic import TrafficRow

if TYPE_CHECKING:
    import openai

AT_ONCE = 4  # requests in flight; the client is slower than the gateway, and more of them would wait for it
STREAM_EVERY = 10  # one request in so many is streamed


class Sent(msgspec.Struct, frozen=True):
    """What the client saw of one request."""

    index: int  # of its row
    streamed: bool
    seconds: float  # until the answer was whole
    receipt: str  # its id, "" where none was named
    content: str = ""
    error: str = ""  # empty: it was answered


def need_client() -> None:
    """Raise ConfigError with the remedy where the `openai` package is missing; it is not loaded yet."""
    if importlib.util.find_spec("openai") is None:
        raise ConfigError(
            "the demo asks through the official openai client, which is not installed: pip install 'upstack[demo]'"
        )


def load_client() -> None:
    """Load the `openai` package, which takes half a second."""
    import openai  # noqa: F401, PLC0415 - an optional dependency


async def send_all(base: str, rows: Sequence[TrafficRow], seen: Callable[[Sent], None]) -> list[Sent]:
    """Send every row, a few at a time, in order; `seen` is called as each is over. The result is in rows' order."""
    import openai  # noqa: PLC0415 - an optional dependency

    # The gateway is on this machine: no proxy of the environment lies between.
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    results: list[Sent] = []
    async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="none", http_client=http, max_retries=0) as client:
        numbered = iter(enumerate(rows))

        async def work() -> None:
            for index, row in numbered:
                sent = await _send(client, index, row)
                results.append(sent)
                seen(sent)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(rows))):
                group.create_task(work())
    return sorted(results, key=lambda sent: sent.index)


async def _send(client: openai.AsyncOpenAI, index: int, row: TrafficRow) -> Sent:
    import openai  # noqa: PLC0415 - an optional dependency

    streamed = index % STREAM_EVERY == STREAM_EVERY - 1
    members: dict[str, Any] = {"model": f"task/{TASK}", "messages": list(row.messages), "stream": streamed}
    if row.tools:
        members["tools"] = list(row.tools)
    receipt = ""
    began = time.perf_counter()
    try:
        raw = await client.chat.completions.with_raw_response.create(**members)
        receipt = raw.headers.get("x-upstack-receipt", "")
        answer = raw.parse()
        content = await _joined(answer) if streamed else answer.choices[0].message.content or ""
    except openai.APIStatusError as error:
        receipt = error.response.headers.get("x-upstack-receipt", "")
        return Sent(index, streamed, time.perf_counter() - began, receipt, error=error.message)
    except (openai.OpenAIError, IndexError) as error:
        return Sent(index, streamed, time.perf_counter() - began, receipt, error=str(error) or type(error).__name__)
    return Sent(index, streamed, time.perf_counter() - began, receipt, content)


async def _joined(stream: Any) -> str:
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
