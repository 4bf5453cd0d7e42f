from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.testing.kit import TEXT, ask_raw, chat
from upstack.testing import EchoProvider, End, Move, RawClient, ScriptedProvider, Step


def read(script: bytes | Sequence[Step]) -> tuple[End, int, bytes]:
    """What the client makes of this answer."""
    with ScriptedProvider([script]) as provider:
        answer = ask_raw(provider, chat(), timeout_s=0.3)
    return answer.end, answer.status, answer.body


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", (End.WHOLE, 200, b"abc")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (End.WHOLE, 204, b"")),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", (End.WHOLE, 200, b"x")),
        ([b"HTTP/1.1 200 OK\r\n\r\nto the end", Move.CLOSE], (End.WHOLE, 200, b"to the end")),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", Move.CLOSE], (End.CLOSED, 200, b"abc")),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", 0.2, Move.RESET], (End.RESET, 200, b"abc")),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", (End.SILENT, 200, b"abc")),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n0\r\nx-trailer: 1\r\n\r\n",
            (End.WHOLE, 200, b"abc"),
        ),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", (End.BAD, 200, b"abc")),
        (b"HELLO\r\n\r\n", (End.BAD, 0, b"")),
        (b"FTP/1.1 200 OK\r\n\r\n", (End.BAD, 0, b"")),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", (End.BAD, 200, b"")),
    ],
)
def test_it_says_what_came_and_how_it_ended(script: bytes | list[Step], expected: tuple[End, int, bytes]) -> None:
    """Whole, cut, reset, silent and malformed answers are told apart, and what came before is kept."""
    assert read(script) == expected


def test_it_sends_slowly() -> None:
    """Bytes can be sent one by one, as a slow-loris does."""

    async def go() -> None:
        async with RawClient(provider.port) as client:
            started = asyncio.get_running_loop().time()
            await client.send(b"POST /v1/chat/", pace_s=0.01)
            assert asyncio.get_running_loop().time() - started > 0.1
            assert not await client.closed(0.05)

    with EchoProvider() as provider:
        asyncio.run(go())


def test_answers_that_came_together_are_read_one_by_one() -> None:
    """Bytes beyond one answer are kept for the next."""

    async def go() -> None:
        async with RawClient(provider.port) as client:
            await client.post(chat("a"))
            await client.post(chat("b"))
            await asyncio.sleep(0.05)
            assert [(await client.read()).text for _ in range(2)] == ["a", "b"]
            assert (await client.ask(chat())).text == TEXT

    with EchoProvider() as provider:
        asyncio.run(go())


def test_it_must_be_connected() -> None:
    """Using a client that is not connected is an error of the test, not of the server."""
    with pytest.raises(RuntimeError, match="not connected"):
        asyncio.run(RawClient(1).send(b""))
