"""A streamed chat completion, read event by event as the command line shows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import httpx2
import msgspec


class _Delta(msgspec.Struct):
    content: Any = None
    refusal: Any = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Error(msgspec.Struct):
    message: str | None = None
    code: Any = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Event).decode


class Show(Protocol):
    """Who is given the text as it comes."""

    def __call__(self, text: str) -> None:
        """Take a piece."""
        ...

    def end(self) -> None:
        """The answer is over, whole or not."""
        ...


class Answer:
    """What has come so far; `error` is empty where all of it did, `error_code` None where it has none."""

    __slots__ = ("error", "error_code", "finish_reason", "pieces", "receipt", "route")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.finish_reason = ""
        self.error = ""
        self.error_code: str | None = None
        self.receipt = ""
        self.route = ""

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self.pieces)


async def read_stream(response: httpx2.Response, answer: Answer, show: Show | None) -> None:
    """Read a stream to its end into `answer`, handing each piece of text to `show`.

    An error event, or an end without `[DONE]`, becomes `answer.error`; what came before it stays.
    """
    try:
        async for data in _events(response):
            if data == b"[DONE]":
                return
            piece = _read(data, answer)
            if answer.error:
                return
            if piece:
                answer.pieces.append(piece)
                if show is not None:
                    show(piece)
        answer.error = "the stream ended before its end; the answer is incomplete"
    finally:
        if show is not None:
            show.end()


async def _events(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The data of each event. Lines end in LF or CRLF only: JSON may hold every other separator of lines."""
    rest = b""
    async for block in response.aiter_bytes():
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()


def _read(data: bytes, answer: Answer) -> str:
    try:
        event = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer.error = "the gateway sent an event that cannot be read; the answer is incomplete"
        return ""
    if event.error is not None:
        answer.error = event.error.message or "the gateway sent an error without words; the answer is incomplete"
        answer.error_code = event.error.code if isinstance(event.error.code, str) else None
    for choice in event.choices[:1]:
        answer.finish_reason = choice.finish_reason or answer.finish_reason
        said = choice.delta.content or choice.delta.refusal
        return said if isinstance(said, str) else ""
    return ""
