"""Fake providers that answer well: the echo, the scripted one, and one that floods."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from upstack.testing.answers import Answer, ChatRequest, ToolCall, completion, stream_parts, words
from upstack.testing.connection import Connection
from upstack.testing.server import FakeProvider
from upstack.testing.wire import DONE, LAST_CHUNK, STREAM_HEAD, Step, chunk, chunks, error_response, response

Script = Answer | bytes | Sequence[Step]  # bytes and steps go out verbatim: they are whole HTTP answers


def render(answer: Answer, request: ChatRequest) -> bytes | Iterable[Step]:
    """Turn an answer into the HTTP answer of the kind that was asked for, plain or streamed."""
    if not request.stream:
        whole = response(200, completion(answer, request))
        if not answer.delay_s and not answer.first_byte_delay_s:
            return whole
        head, _, body = whole.partition(b"\r\n\r\n")
        return (answer.delay_s, head + b"\r\n\r\n", answer.first_byte_delay_s, body)
    parts = stream_parts(answer, request)
    events = [*parts.opening, *parts.deltas, *parts.finish, *parts.usage, DONE]
    if not (answer.delay_s or answer.first_byte_delay_s or answer.between_chunks_s):
        return STREAM_HEAD + chunks(events) + LAST_CHUNK
    return _paced(answer, events)


def _paced(answer: Answer, events: list[bytes]) -> Iterator[Step]:
    yield answer.delay_s
    yield STREAM_HEAD
    yield answer.first_byte_delay_s
    yield chunk(events[0])
    for each in events[1:]:
        yield answer.between_chunks_s
        yield chunk(each)
    yield LAST_CHUNK


class EchoProvider(FakeProvider):
    """Answers with the last user message's text; tokens are words unless given, times are in seconds.

    With `tools` and a `tool_choice` that forces one it calls that tool, with `response_format` it answers in JSON; both
    fit the schema, with made-up values. A model whose name holds "reason" reasons first.
    """

    def __init__(
        self,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int = 0,
        first_byte_delay_s: float = 0.0,
        between_chunks_s: float = 0.0,
        port: int = 0,
    ) -> None:
        super().__init__(port=port)
        self._input_tokens = input_tokens
        self._output_tokens = output_tokens
        self._cached_tokens = cached_tokens
        self._first_byte_delay_s = first_byte_delay_s
        self._between_chunks_s = between_chunks_s

    def chat(self, request: ChatRequest) -> bytes | Iterable[Step]:
        """Echo."""
        return render(self.reply(request), request)

    def reply(self, request: ChatRequest) -> Answer:
        """Say what the echo says to a request."""
        text = request.last_user_text
        call = _forced_call(request, text)
        reasoning = f"The user said: {text}" if "reason" in request.model else None
        return Answer(
            content=None if call else _formatted(request, text),
            tool_calls=(call,) if call else (),
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            cached_tokens=self._cached_tokens,
            reasoning_tokens=len(words(reasoning or "")),
            reasoning=reasoning,
            first_byte_delay_s=self._first_byte_delay_s,
            between_chunks_s=self._between_chunks_s,
        )


class ScriptedProvider(FakeProvider):
    """Answers as it was told to: from a list, one request an answer, or by a function of the request.

    After the end of a list it answers 500 with code "script_exhausted". Bytes and steps go out verbatim.
    """

    models = ("scripted-1",)

    def __init__(self, answers: Iterable[Script] | Callable[[ChatRequest], Script], *, port: int = 0) -> None:
        super().__init__(port=port)
        self._choose = answers if callable(answers) else _in_turn(list(answers))

    def chat(self, request: ChatRequest) -> bytes | Iterable[Step]:
        """Play the script's answer to this request."""
        answer = self._choose(request)
        return render(answer, request) if isinstance(answer, Answer) else answer


class FloodProvider(FakeProvider):
    """Streams events of `event_bytes` bytes each, `megabytes` MiB in all, as fast as the reader takes them."""

    models = ("flood-1",)
    write_buffer = 0  # nothing waits in the process: what was sent, the kernel took

    def __init__(self, megabytes: float = 200.0, *, event_bytes: int = 64 * 1024, port: int = 0) -> None:
        super().__init__(port=port)
        self._total = int(megabytes * 1024 * 1024)
        self._event_bytes = event_bytes
        self._of_closed = 0

    @property
    def bytes_accepted(self) -> int:
        """Bytes the kernel took of all answers so far; of connections that are gone, up to one event too many."""
        if self._loop is None:
            return self._of_closed
        open_now = self._in_loop(lambda: sum(each.sent - each.unsent() for each in self._connections))
        return self._of_closed + open_now

    def chat(self, request: ChatRequest) -> bytes | Iterable[Step]:
        """Flood; a plain answer is one JSON document of that size."""
        if not request.stream:
            return self._plain(request)
        return self._stream(request)

    def closed(self, connection: Connection, hung_up: bool) -> None:
        """Keep what a connection took."""
        self._of_closed += max(0, connection.sent - connection.unsent())
        super().closed(connection, hung_up)

    def _stream(self, request: ChatRequest) -> Iterator[Step]:
        parts = stream_parts(Answer("x"), request)
        frame = len(chunk(parts.deltas[0])) - 1
        block = chunk(stream_parts(Answer("x" * max(1, self._event_bytes - frame)), request).deltas[0])
        yield STREAM_HEAD + chunks(parts.opening)
        for _ in range(max(1, self._total // len(block))):
            yield block
        yield chunks([*parts.finish, *parts.usage, DONE]) + LAST_CHUNK

    def _plain(self, request: ChatRequest) -> Iterator[Step]:
        before, _, after = response(200, completion(Answer("@"), request)).partition(b"@")
        head, _, start = before.partition(b"\r\n\r\n")
        size = len(start) + self._total + len(after)
        lines = [line for line in head.split(b"\r\n") if not line.startswith(b"content-length")]
        yield b"\r\n".join([*lines, b"content-length: %d" % size, b"", start])
        block = b"x" * self._event_bytes
        for _ in range(self._total // len(block)):
            yield block
        yield b"x" * (self._total % len(block)) + after


def _in_turn(answers: list[Script]) -> Callable[[ChatRequest], Script]:
    turn = itertools.count()

    def choose(_request: ChatRequest) -> Script:
        index = next(turn)
        if index < len(answers):
            return answers[index]
        message = f"the script has {len(answers)} answers, and this is request {index + 1}"
        return error_response(500, message, code="script_exhausted")

    return choose


def _forced_call(request: ChatRequest, text: str) -> ToolCall | None:
    """Call the tool that `tool_choice` forces, the first one where any will do."""
    choice = request.tool_choice
    if not request.tools or choice is None or choice in ("auto", "none"):
        return None
    functions = [tool.get("function", {}) for tool in request.tools]
    if isinstance(choice, dict):
        name = choice.get("function", {}).get("name")
        functions = [function for function in functions if function.get("name") == name] or [{"name": name}]
    value = _fitting(functions[0].get("parameters") or {"type": "object"}, text)
    return ToolCall(str(functions[0].get("name")), msgspec.json.encode(value).decode())


def _formatted(request: ChatRequest, text: str) -> str:
    wanted = request.response_format or {}
    if wanted.get("type") == "json_schema":
        schema = (wanted.get("json_schema") or {}).get("schema") or {"type": "object"}
        return msgspec.json.encode(_fitting(schema, text)).decode()
    if wanted.get("type") == "json_object":
        return msgspec.json.encode({"echo": text}).decode()
    return text


def _fitting(schema: dict[str, Any], text: str) -> Any:
    """Make up a value that fits a plain JSON schema: no references, the first of alternatives, strings hold `text`."""
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return _fitting(schema[key][0], text)
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: _fitting(part, text) for name, part in (schema.get("properties") or {}).items()}
    simple = {"array": [], "number": 0, "integer": 0, "boolean": False, "null": None}
    return simple.get(kind, text)
