"""A chat-completions stream, read event by event as its bytes pass: the commit rule, its end, and what it said.

Pure: bytes in, bytes out. Events are released whole and unchanged, so that whatever follows starts on an event
boundary. Nothing is released before the first delta that says anything at all.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from upstack.application.gateway.dialects.deltas import Said, says_something
from upstack.core.errors import Failure, SupplyError
from upstack.core.types import Usage
from upstack.inference.cost import read_usage

LARGEST_EVENT = 16 * 1024 * 1024  # bytes of one event
LARGEST_HELD = 1024 * 1024  # bytes held back before the first content
MOST_CHOICES = 256  # of one answer
DONE = b"data: [DONE]\n\n"

# A carriage return and its line feed are never two line ends: one that was read last waits for what follows.
_END = rb"(?:\r\n|\n|\r(?=[^\n]))"
_BOUNDARY = re.compile(_END + _END)  # written out: repeated as {2} it takes four times as long
_LINE = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_FEED = ord("\n")


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None  # None: 0
    delta: dict[str, Any] | None = None
    finish_reason: str | None = None
    logprobs: Any = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


def choices_wanted(n: msgspec.Raw) -> int:
    """Read a request's `n`; 1 where it is no number, as the provider will judge it."""
    try:
        return msgspec.json.decode(n, type=int)
    except msgspec.DecodeError:
        return 1


class ChatStream:
    """One stream as it is read.

    `feed` returns what may go to the caller now. `committed`: the first content has been seen. `done`: `[DONE]` has
    been seen; it is not released, the caller's end is ours to send. `broken`: why the stream cannot be read on
    (MALFORMED, ERROR_IN_STREAM, TOO_LARGE, TRUNCATED); nothing is fed after it.
    """

    __slots__ = (
        "_choices",
        "_first",
        "_held",
        "_held_size",
        "_room",
        "_said",
        "_strip_usage",
        "_tail",
        "_usage",
        "broken",
        "committed",
        "done",
    )

    def __init__(self, *, strip_usage: bool, keep: int, choices: int = 1) -> None:
        """`strip_usage`: the caller did not ask for the usage event.

        `keep`: bytes of the answer to remember, 0 for none. `choices`: how many were asked for.
        """
        self.committed = False
        self.done = False
        self.broken: SupplyError | None = None
        self._choices = choices
        self._strip_usage = strip_usage
        self._room = keep  # used up: the answer is not remembered
        self._usage: Any = None
        self._tail = bytearray()  # an event that is not whole yet
        self._held: list[bytes] = []
        self._held_size = 0
        self._first: bytes | None = None
        self._said: dict[int, Said] = {}

    @property
    def usage(self) -> Usage | None:
        """The last usage the stream told; None where it told none, or one that cannot be read."""
        if self._usage is None:
            return None
        try:
            return read_usage(msgspec.json.encode(self._usage))
        except (ValueError, OverflowError, RecursionError):
            return None

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the body; return those to pass on. Sets `broken` instead of raising."""
        if self._tail:
            looked = max(0, len(self._tail) - len(b"\r\n\r"))  # nothing is looked at twice, however long the event
            self._tail += data
            if _BOUNDARY.search(self._tail, looked) is None:
                return self._wait()
            data, self._tail = bytes(self._tail), bytearray()
        elif data[:7] == b"data: {" and data[-1] == _LINE_FEED and data.find(b"\n") == len(data) - 2:
            return self._pass(data, data[6:-2])  # one line, one whole event, as nearly always
        released: list[bytes] = []
        start = 0
        while True:
            line_end = data.find(b"\n", start)
            if data.startswith(b"data: {", start) and data[line_end : line_end + 2] == b"\n\n":
                end = line_end + 2
                released.append(self._pass(data[start:end], data[start + 6 : line_end]))
            else:
                boundary = _BOUNDARY.search(data, start)
                if boundary is None:
                    break
                end = boundary.end()
                released.append(self._event(data[start:end]))
            start = end
            if self.done or self.broken is not None:
                return b"".join(released)
        self._tail += data[start:]
        self._wait()
        return b"".join(released)

    def end(self) -> bytes:
        """The provider ended the body; return what is left to pass on. Sets `broken` where that was not its end."""
        tail, self._tail = bytes(self._tail), bytearray()
        if tail.endswith(b"\r"):
            tail += b"\n"
        if not _BOUNDARY.search(tail):
            tail += b"\n\n"
        rest = self._event(tail) if tail.strip() and not self.done else b""
        if self.broken is None and not self.done and not self.finished():
            self._break(Failure.TRUNCATED, "the stream ended without its end")
        return rest

    def finished(self) -> bool:
        """Say whether every choice, and as many as were asked for, has told why it stopped."""
        said = self._said.values()
        return len(said) >= max(1, self._choices) and all(choice.finish_reason for choice in said)

    def take_held(self) -> bytes:
        """Return what is still held back (an answer without any content); it is given once."""
        held, self._held = b"".join(self._held), []
        return held

    def answer(self) -> bytes | None:
        """Put the deltas together as one chat completion.

        None where nothing was said, it outgrew `keep`, or the provider's members do not fit together: what passed to
        the caller as it came may still be no answer one could keep.
        """
        if self._first is None or self._room <= 0:
            return None
        try:
            return self._whole(self._first)
        except (ValueError, TypeError, AttributeError, OverflowError, msgspec.MsgspecError, RecursionError):
            return None

    def _whole(self, first: bytes) -> bytes:
        whole = {key: value for key, value in json.loads(first).items() if key not in {"choices", "usage"}}
        whole["object"] = "chat.completion"
        whole["choices"] = [said.choice(index) for index, said in sorted(self._said.items())]
        usage = self.usage
        if usage is not None:
            whole["usage"] = {
                "prompt_tokens": usage.input_tokens,
                "completion_tokens": usage.output_tokens,
                "total_tokens": usage.input_tokens + usage.output_tokens,
            }
        return _encoded(whole)

    def _wait(self) -> bytes:
        if len(self._tail) > LARGEST_EVENT:
            self._break(Failure.TOO_LARGE, f"one event of the stream is above {LARGEST_EVENT} bytes")
        return b""

    def _event(self, event: bytes) -> bytes:
        read = event if self._said or self._held else event.removeprefix(_BYTE_ORDER_MARK)
        lines = [line for line in _LINE.split(read) if line.startswith(b"data")]
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
            chunk = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if b"\r" in payload:  # taken for one line, and is several
                return self._event(event)
            halved = _decode_halved(payload)
            if halved is None:
                return self._break(Failure.MALFORMED, "an event of the stream is not a completion chunk in JSON")
            chunk = halved
        if chunk.error:
            return self._break(Failure.ERROR_IN_STREAM, "the stream carried an error")
        if chunk.usage:
            self._usage = chunk.usage
            if not chunk.choices and self._strip_usage:
                return b""
        for choice in chunk.choices or ():
            index = choice.index or 0
            try:
                said = self._said[index]
            except KeyError:
                if len(self._said) == MOST_CHOICES:
                    return self._break(Failure.MALFORMED, f"the stream has more than {MOST_CHOICES} choices")
                said = self._said[index] = Said()
                self._first = self._first or payload
            delta = choice.delta
            if delta:
                if self._room > 0:
                    self._room -= len(payload)
                    text = delta.get("content")
                    said.deltas.append(text if type(text) is str and len(delta) == 1 else delta)
                    if choice.logprobs:
                        said.logprobs.append(choice.logprobs)
                self.committed = self.committed or says_something(delta)
            if choice.finish_reason:
                said.finish_reason = choice.finish_reason
        if self.committed and not self._held:
            return event
        return self._release(event)

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


def _decode_halved(payload: bytes) -> _Chunk | None:
    r"""Read a chunk that holds half a character (`"\ud83d"`, its other half in the next delta), as JSON allows.

    None where that is not what kept msgspec from reading it.
    """
    if b"\\ud" not in payload.lower():
        return None
    try:
        return msgspec.convert(json.loads(payload.decode()), _Chunk)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None


def _encoded(whole: dict[str, Any]) -> bytes:
    """Encode as JSON; the halves of a character that came one after the other become one, a lone one a "?"."""
    try:
        return msgspec.json.encode(whole)
    except UnicodeEncodeError:
        return json.dumps(json.loads(json.dumps(whole)), ensure_ascii=False).encode("utf-8", "replace")
