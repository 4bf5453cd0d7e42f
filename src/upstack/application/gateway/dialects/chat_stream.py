"""A chat-completions stream, read event by event as its bytes pass: the commit rule, its end, and what it said.

Pure: bytes in, bytes out. Events are released whole and unchanged, so that whatever follows starts on an event
boundary. Nothing is released before the first content, tool-call or reasoning delta.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from upstack.application.gateway.dialects.raw import NOTHING, told
from upstack.core.errors import Failure, SupplyError
from upstack.core.types import Usage
from upstack.inference.cost import read_usage

LARGEST_EVENT = 16 * 1024 * 1024  # bytes of one event
LARGEST_HELD = 1024 * 1024  # bytes held back before the first content
MOST_CHOICES = 256  # of one answer
DONE = b"data: [DONE]\n\n"

_BOUNDARY = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")  # a carriage return and its line feed are never two line ends
_LINE = re.compile(rb"\r\n|\n|\r")


class _Delta(msgspec.Struct, gc=False):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None
    function_call: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None

    def says_something(self) -> bool:
        return bool(
            self.content
            or self.tool_calls
            or self.reasoning_content
            or self.reasoning
            or self.function_call
            or self.refusal
            or self.audio
        )


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = NOTHING


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = NOTHING
    error: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)


class ChatStream:
    """One stream as it is read.

    `feed` returns what may go to the caller now. `committed`: the first content has been seen. `done`: `[DONE]` has
    been seen; it is not released, the caller's end is ours to send. `usage`: the last one the stream told. `broken`:
    why the stream cannot be read on (MALFORMED, ERROR_IN_STREAM, TOO_LARGE, TRUNCATED); nothing is fed after it.
    """

    __slots__ = (
        "_first",
        "_held",
        "_held_size",
        "_keep",
        "_said",
        "_size",
        "_strip_usage",
        "_tail",
        "broken",
        "committed",
        "done",
        "usage",
    )

    def __init__(self, *, strip_usage: bool, keep: int) -> None:
        """`strip_usage`: the caller did not ask for the usage event. `keep`: bytes of the answer to remember."""
        self.committed = False
        self.done = False
        self.usage: Usage | None = None
        self.broken: SupplyError | None = None
        self._strip_usage = strip_usage
        self._keep = keep
        self._size = 0
        self._tail = bytearray()  # an event that is not whole yet
        self._held: list[bytes] = []
        self._held_size = 0
        self._first: bytes | None = None
        self._said: dict[int, _Said] = {}

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the body; return those to pass on. Sets `broken` instead of raising."""
        if self._tail:
            looked = max(0, len(self._tail) - len(b"\r\n\r"))  # nothing is looked at twice, however long the event
            self._tail += data
            if _BOUNDARY.search(self._tail, looked) is None:
                return self._wait()
            data, self._tail = bytes(self._tail), bytearray()
        elif data.startswith(b"data: {") and data.endswith(b"}\n\n") and data.find(b"\n\n") == len(data) - 2:
            return self._pass(data, data[6:-2])  # one whole event, as nearly always
        released: list[bytes] = []
        start = 0
        for boundary in _BOUNDARY.finditer(data):
            released.append(self._event(data[start : boundary.end()]))
            start = boundary.end()
            if self.done or self.broken is not None:
                return b"".join(released)
        self._tail += data[start:]
        self._wait()
        return b"".join(released)

    def end(self) -> bytes:
        """The provider ended the body; return what is left to pass on. Sets `broken` where that was not its end."""
        tail, self._tail = bytes(self._tail), bytearray()
        rest = self._event(tail + b"\n\n") if tail.strip() and not self.done else b""
        if self.broken is None and not self.done and not self.finished():
            self._break(Failure.TRUNCATED, "the stream ended without its end")
        return rest

    def finished(self) -> bool:
        """Say whether every choice has told why it stopped."""
        return bool(self._said) and all(said.finish_reason for said in self._said.values())

    def take_held(self) -> bytes:
        """Return what is still held back (an answer without any content); it is given once."""
        held, self._held = b"".join(self._held), []
        return held

    def answer(self) -> bytes | None:
        """Put the deltas together as one chat completion.

        None where nothing was said, it outgrew `keep`, or the provider's members do not fit together: what passed to
        the caller as it came may still be no answer one could keep.
        """
        if self._first is None or self._size > self._keep:
            return None
        try:
            return self._whole(self._first)
        except (ValueError, TypeError, AttributeError, msgspec.MsgspecError, RecursionError):
            return None

    def _whole(self, first: bytes) -> bytes:
        whole = {key: value for key, value in msgspec.json.decode(first).items() if key not in {"choices", "usage"}}
        whole["object"] = "chat.completion"
        whole["choices"] = [said.choice(index) for index, said in sorted(self._said.items())]
        if self.usage is not None:
            whole["usage"] = {
                "prompt_tokens": self.usage.input_tokens,
                "completion_tokens": self.usage.output_tokens,
                "total_tokens": self.usage.input_tokens + self.usage.output_tokens,
            }
        return msgspec.json.encode(whole)

    def _wait(self) -> bytes:
        if len(self._tail) > LARGEST_EVENT:
            self._break(Failure.TOO_LARGE, f"one event of the stream is above {LARGEST_EVENT} bytes")
        return b""

    def _event(self, event: bytes) -> bytes:
        lines = [line for line in _LINE.split(event) if line.startswith(b"data")]
        parts = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
        payload = b"\n".join(parts)
        if payload.strip() == b"[DONE]":
            if not self._said:
                return self._break(Failure.MALFORMED, "the stream has no answer in it")
            self.done = True
            return b""
        if not payload.strip():  # comments, keep-alives, events without data
            return self._release(event)
        return self._pass(event, payload)

    def _pass(self, event: bytes, payload: bytes) -> bytes:
        try:
            chunk = _CHUNK.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._break(Failure.MALFORMED, "an event of the stream is not a completion chunk in JSON")
        if chunk.error:
            return self._break(Failure.ERROR_IN_STREAM, "the stream carried an error")
        if told(chunk.usage):
            self.usage = read_usage(chunk.usage) or self.usage
            if not chunk.choices and self._strip_usage:
                return b""
        for choice in chunk.choices or ():
            self._note(choice, len(payload))
        if len(self._said) > MOST_CHOICES:
            return self._break(Failure.MALFORMED, f"the stream has more than {MOST_CHOICES} choices")
        if self._first is None and chunk.choices is not None:
            self._first = payload
        if self.committed and not self._held:
            return event
        return self._release(event)

    def _note(self, choice: _Choice, size: int) -> None:
        said = self._said.get(choice.index)
        if said is None:
            said = self._said[choice.index] = _Said()
        delta = choice.delta
        if delta is not None and (delta.content or delta.says_something()):
            self.committed = True
            self._size += size
            if self._size <= self._keep:
                said.deltas.append(delta)
                if told(choice.logprobs):
                    said.logprobs.append(bytes(choice.logprobs))
        if choice.finish_reason:
            said.finish_reason = choice.finish_reason

    def _release(self, event: bytes) -> bytes:
        if not self.committed:
            self._held.append(event)
            self._held_size += len(event)
            if self._held_size > LARGEST_HELD:
                return self._break(Failure.TOO_LARGE, f"{LARGEST_HELD} bytes of stream without any content")
            return b""
        if self._held:
            self._held.append(event)
            return self.take_held()
        return event

    def _break(self, failure: Failure, message: str) -> bytes:
        self.broken = SupplyError(failure, message)
        return b""


class _Said:
    """What one choice has said so far."""

    __slots__ = ("deltas", "finish_reason", "logprobs")

    def __init__(self) -> None:
        self.deltas: list[_Delta] = []
        self.logprobs: list[bytes] = []
        self.finish_reason: str | None = None

    def choice(self, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": _content(self.deltas)}
        for name in ("reasoning_content", "reasoning", "refusal"):
            text = "".join(getattr(delta, name) or "" for delta in self.deltas)
            if text:
                message[name] = text
        calls = _tool_calls(self.deltas)
        if calls:
            message["tool_calls"] = calls
        functions = [delta.function_call for delta in self.deltas if delta.function_call]
        if functions:
            message["function_call"] = _joined(functions)
        whole: dict[str, Any] = {"index": index, "message": message, "finish_reason": self.finish_reason}
        tokens = [token for raw in self.logprobs for token in msgspec.json.decode(raw).get("content") or ()]
        if tokens:
            whole["logprobs"] = {"content": tokens}
        return whole


def _content(deltas: list[_Delta]) -> str | list[Any] | None:
    texts = [delta.content for delta in deltas if isinstance(delta.content, str)]
    parts = [part for delta in deltas if isinstance(delta.content, list) for part in delta.content]
    if parts:
        return parts + [{"type": "text", "text": text} for text in texts if text]
    return "".join(texts) if texts else None


def _tool_calls(deltas: list[_Delta]) -> list[dict[str, Any]]:
    pieces: dict[Any, list[dict[str, Any]]] = {}
    for delta in deltas:
        for piece in delta.tool_calls or ():
            if isinstance(piece, dict):
                pieces.setdefault(piece.get("index", len(pieces)), []).append(piece)
    return [_tool_call(group) for group in pieces.values()]


def _tool_call(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    call = {key: value for piece in pieces for key, value in piece.items() if value is not None and key != "index"}
    functions = [piece["function"] for piece in pieces if isinstance(piece.get("function"), dict)]
    if functions:
        call["function"] = _joined(functions)
    return call


def _joined(functions: list[dict[str, Any]]) -> dict[str, str]:
    """Join the pieces of a function call: the name comes once, the arguments bit by bit."""
    return {
        key: "".join(str(function[key]) for function in functions if function.get(key)) for key in ("name", "arguments")
    }
