"""The decision core is free of transport: the same gateway under plain ASGI, without uvicorn and its protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.gateway.serving import Serving, chat, make_gateway, provider
from upstack.application.gateway.app import build_app
from upstack.application.gateway.gateway import Gateway
from upstack.application.gateway.state import build_state
from upstack.core.config import Config, ProviderConfig, TaskConfig
from upstack.core.errors import LedgerError
from upstack.core.store.client import LedgerClient
from upstack.core.types import Receipt
from upstack.foundation.backends.openai import OpenAIBackend
from upstack.testing import EchoProvider, End, Fault, FlakyProvider, FloodProvider, RawClient, RawResponse, post_bytes


async def never() -> int:
    """Nothing reloads here."""
    raise NotImplementedError


@asynccontextmanager
async def asgi(
    folder: Path, ledger_kind: type[LedgerClient] = LedgerClient, **urls: str
) -> AsyncIterator[tuple[httpx2.AsyncClient, Gateway]]:
    """A client that calls the application directly, and the gateway behind it."""
    config = Config(
        providers={name: ProviderConfig(base_url=url, auth="none") for name, url in urls.items()},
        tasks={"t": TaskConfig(candidates=tuple(f"{name}/m" for name in urls))},
    )
    ledger = ledger_kind(folder / "upstack.db")
    await ledger.start()
    backend = OpenAIBackend()
    gateway = make_gateway(config, build_state(config, {}, 1), ledger, {"openai": backend})
    transport = httpx2.ASGITransport(build_app(gateway, never), raise_app_exceptions=False)
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client, gateway
    finally:
        await backend.close()
        await ledger.close()


async def receipt_of(gateway: Gateway, answer: httpx2.Response) -> Receipt:
    """The receipt an answer names."""
    found = await gateway.ledger.get(answer.headers["x-upstack-receipt"])
    assert found is not None
    return found


def test_plain_and_streamed_answers(tmp_path: Path) -> None:
    """Both kinds are answered and recorded as on the hot path."""

    async def run() -> None:
        async with asgi(tmp_path, echo=echo.base_url) as (client, gateway):
            plain = await client.post("/v1/chat/completions", json=chat("task/t", "hello"))
            assert plain.json()["choices"][0]["message"]["content"] == "hello"
            assert (await receipt_of(gateway, plain)).state == "answered"
            stream = await client.post("/v1/chat/completions", json=chat("task/t", "hello", stream=True))
            assert stream.text.endswith("data: [DONE]\n\n")
            assert (await receipt_of(gateway, stream)).stream

    with EchoProvider() as echo:
        asyncio.run(run())


@pytest.mark.parametrize("fault", [Fault.STATUS_500, Fault.RESET_BEFORE_HEADERS, Fault.MALFORMED_JSON])
def test_fail_over(tmp_path: Path, fault: Fault) -> None:
    """A broken first route is failed over from unseen, and the receipt tells of both attempts."""

    async def run() -> None:
        async with asgi(tmp_path, broken=broken.base_url, echo=echo.base_url) as (client, gateway):
            answer = await client.post("/v1/chat/completions", json=chat("task/t", "hello"))
            assert answer.status_code == 200
            receipt = await receipt_of(gateway, answer)
            assert [attempt.route for attempt in receipt.attempts] == ["broken/m", "echo/m"]
            assert receipt.attempts[0].failure is not None

    with FlakyProvider(fault) as broken, EchoProvider() as echo:
        asyncio.run(run())


@pytest.mark.parametrize(
    ("send", "status"),
    [
        (
            lambda client: client.post(
                "/v1/chat/completions", content=b"{", headers={"content-type": "application/json"}
            ),
            400,
        ),
        (lambda client: client.post("/v1/chat/completions", content=b"{}"), 415),
        (lambda client: client.get("/v1/chat/completions"), 405),
    ],
)
def test_bad_requests(tmp_path: Path, send: Callable[[httpx2.AsyncClient], object], status: int) -> None:
    """The same 4xx as on the hot path."""

    async def run() -> None:
        async with asgi(tmp_path, echo="http://127.0.0.1:9/v1") as (client, _):
            answer = await send(client)  # type: ignore[misc]
            assert answer.status_code == status
            assert answer.json()["error"]["type"] == "invalid_request_error"

    asyncio.run(run())


def test_a_server_that_takes_nothing_holds_the_provider_back(tmp_path: Path) -> None:
    """What waits for the server is bounded in bytes, however large the pieces of a stream are."""

    async def run() -> int:
        async with asgi(tmp_path, flood=flood.base_url) as (_, gateway):
            body = json.dumps(chat("flood/m", stream=True)).encode()
            headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
            scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
            stalled = asyncio.Event()
            received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()  # no word of a disconnect ever comes
            received.put_nowait({"type": "http.request", "body": body})

            async def send(message: MutableMapping[str, Any]) -> None:
                if message["type"] == "http.response.body":
                    stalled.set()
                    await asyncio.Event().wait()

            answering = asyncio.ensure_future(build_app(gateway, never)(scope, received.get, send))
            await asyncio.wait_for(stalled.wait(), 10)
            await asyncio.sleep(1)
            answering.cancel()
            return flood.bytes_accepted

    with FloodProvider(200.0, event_bytes=4 * 1024 * 1024) as flood:
        assert asyncio.run(run()) < 20 * 1024 * 1024


def test_a_cut_stream_is_no_error_of_the_application(tmp_path: Path) -> None:
    """Past the hot path too a cut stream ends in its error event and a broken connection; nothing goes to the log."""

    async def run() -> RawResponse:
        async with RawClient(serving.port) as caller:
            await caller.send(post_bytes(chat("cut/m", stream=True), path="/v1/chat%2Fcompletions"))
            return await caller.read()

    with FlakyProvider(Fault.CLOSE_MID_STREAM) as cut, Serving(tmp_path, provider("cut", cut.base_url)) as serving:
        before = serving.log
        answer = asyncio.run(run())
        assert b"truncated_answer" in answer.events[-1]
        assert answer.end is End.CLOSED
        assert serving.get("/healthz").status_code == 200
        assert serving.log == before


class OneOpening(LedgerClient):
    """A ledger that refuses what it is told of a stream a second time."""

    refused = 0

    def open(self, receipt: Receipt, done: Callable[[LedgerError | None], None] | None) -> None:
        """Take the first; say no a little later to those that follow."""
        if len(receipt.attempts) == 1:
            super().open(receipt, done)
        elif done is not None:
            type(self).refused += 1
            asyncio.get_running_loop().call_later(0.1, done, LedgerError("no more"))


def test_a_stream_the_ledger_knows_of_flows_on(tmp_path: Path) -> None:
    """What becomes of noting its second attempt is no matter: the receipt will tell of it."""

    async def run() -> None:
        async with asgi(tmp_path, OneOpening, broken=broken.base_url, slow=slow.base_url) as (client, gateway):
            answer = await client.post("/v1/chat/completions", json=chat("task/t", "one two three", stream=True))
            assert answer.text.endswith("data: [DONE]\n\n")
            receipt = await receipt_of(gateway, answer)
            assert (receipt.state, receipt.status, len(receipt.attempts)) == ("answered", 200, 2)

    with FlakyProvider(Fault.STATUS_500) as broken, EchoProvider(between_chunks_s=0.1) as slow:
        asyncio.run(run())


def test_a_request_that_is_cut_is_not_taken_for_whole(tmp_path: Path) -> None:
    """A caller who hangs up in the middle has asked nothing, whatever its bytes so far would say."""

    async def run() -> None:
        async with asgi(tmp_path, echo=echo.base_url) as (_, gateway):
            headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
            scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
            received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
            body = json.dumps(chat("echo/m")).encode()
            received.put_nowait({"type": "http.request", "body": body, "more_body": True})
            received.put_nowait({"type": "http.disconnect"})
            sent: list[Any] = []

            async def send(message: MutableMapping[str, Any]) -> None:
                sent.append(message)

            await asyncio.wait_for(build_app(gateway, never)(scope, received.get, send), 5)
            assert not sent

    with EchoProvider() as echo:
        asyncio.run(run())
        assert echo.count == 0
