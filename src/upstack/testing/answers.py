"""Chat requests as fake providers read them, and the chat completions they answer with. No I/O here."""

from __future__ import annotations

import itertools
import time
from typing import Any

import msgspec

from upstack.testing.wire import event


class StreamOptions(msgspec.Struct):
    """`stream_options`."""

    include_usage: bool | None = None


class Message(msgspec.Struct):
    """One message; its content is text, a list of parts, or nothing."""

    role: str
    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        """The text of the content, that of its parts joined by blanks."""
        if isinstance(self.content, str):
            return self.content
        return " ".join(str(part["text"]) for part in self.content or () if "text" in part)


class ChatRequest(msgspec.Struct):
    """The part of a chat completion request that the fakes understand; the rest is in the recorded request."""

    model: str = ""
    messages: list[Message] = []
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None

    @property
    def last_user_text(self) -> str:
        """The text of the last message of the user, empty where there is none."""
        for message in reversed(self.messages):
            if message.role == "user":
                return message.text
        return ""

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to end with its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ToolCall(msgspec.Struct, frozen=True):
    """A call of a tool; `arguments` is JSON text, sent as it is."""

    name: str
    arguments: str = "{}"
    id: str = "call_1"


class Answer(msgspec.Struct, frozen=True):
    """What a scripted provider says. Tokens that are None are counted as words; times are in seconds."""

    content: str | None = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None  # None: "tool_calls" or "stop"
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0  # part of the input
    reasoning_tokens: int = 0  # part of the output
    reasoning: str | None = None  # sent as `reasoning_content`
    chunks: tuple[str, ...] | None = None  # the content as a stream cuts it; None: words
    report_usage: bool = True
    delay_s: float = 0.0  # before the status line
    first_byte_delay_s: float = 0.0  # between the headers and the body
    between_chunks_s: float = 0.0  # between the events of a stream


class StreamParts(msgspec.Struct, frozen=True):
    """A stream's events, framed: roles, what is said, finish reasons, usage; `[DONE]` is not among them."""

    opening: list[bytes]
    deltas: list[bytes]
    finish: list[bytes]
    usage: list[bytes]


_ids = itertools.count(1)
_encode = msgspec.json.encode


def words(text: str) -> list[str]:
    """Cut a text behind its blanks; the pieces join to the text again."""
    pieces = [piece + " " for piece in text.split(" ")]
    pieces[-1] = pieces[-1][:-1]
    return [piece for piece in pieces if piece]


def usage_of(answer: Answer, request: ChatRequest) -> dict[str, Any]:
    """Count or take the tokens of an answer, in the OpenAI shape."""
    given = answer.input_tokens
    used_in = sum([len(message.text.split()) for message in request.messages]) if given is None else given
    used_out = answer.output_tokens
    if used_out is None:
        said = len((answer.content or "").split()) + sum(len(call.arguments.split()) for call in answer.tool_calls)
        used_out = said * (request.n or 1) + answer.reasoning_tokens
    usage: dict[str, Any] = {
        "prompt_tokens": used_in,
        "completion_tokens": used_out,
        "total_tokens": used_in + used_out,
    }
    if answer.cached_tokens:
        usage["prompt_tokens_details"] = {"cached_tokens": answer.cached_tokens}
    if answer.reasoning_tokens:
        usage["completion_tokens_details"] = {"reasoning_tokens": answer.reasoning_tokens}
    return usage


def completion(answer: Answer, request: ChatRequest) -> bytes:
    """Render the JSON body of a plain answer: one choice, or `n` of them that are equal."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.content, "refusal": None}
    if answer.reasoning is not None:
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message["tool_calls"] = [_call(call) for call in answer.tool_calls]
    logprobs = _logprobs(words(answer.content or ""), request) if request.logprobs else None
    finish = _finish_reason(answer)
    choices = [
        {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}
        for index in range(request.n or 1)
    ]
    body = {**_common("chat.completion", request.model), "choices": choices}
    if answer.report_usage:
        body["usage"] = usage_of(answer, request)
    return _encode(body)


def stream_parts(answer: Answer, request: ChatRequest) -> StreamParts:
    """Render the events of a streamed answer; with `n` choices each piece is sent for every choice in turn."""
    common = _common("chat.completion.chunk", request.model)
    if request.wants_usage:
        common["usage"] = None
    indices = range(request.n or 1)

    def render(delta: dict[str, Any], finish: str | None = None, tokens: list[str] | None = None) -> list[bytes]:
        logprobs = _logprobs(tokens, request) if request.logprobs and tokens else None
        return [event(_encode({**common, "choices": [_choice(index, delta, logprobs, finish)]})) for index in indices]

    deltas: list[bytes] = []
    for piece in words(answer.reasoning or ""):
        deltas += render({"reasoning_content": piece})
    for piece in words(answer.content or "") if answer.chunks is None else answer.chunks:
        deltas += render({"content": piece}, tokens=[piece])
    for delta in _call_deltas(answer):
        deltas += render({"tool_calls": [delta]})
    usage: list[bytes] = []
    if request.wants_usage and answer.report_usage:
        usage = [event(_encode({**common, "choices": [], "usage": usage_of(answer, request)}))]
    return StreamParts(
        opening=render({"role": "assistant", "content": None if answer.tool_calls else ""}),
        deltas=deltas,
        finish=render({}, finish=_finish_reason(answer)),
        usage=usage,
    )


def events_of(body: bytes) -> list[bytes]:
    """Give the data of the server-sent events of a body that are whole, `[DONE]` among them."""
    found = []
    for block in body.replace(b"\r\n", b"\n").split(b"\n\n")[:-1]:
        lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
        if lines:
            found.append(b"\n".join(lines))
    return found


def text_of(body: bytes, *, stream: bool) -> str:
    """Give what the first choice of an answer says; events that are no JSON are passed over.

    A plain body that is no answer raises msgspec.DecodeError, LookupError or TypeError.
    """
    if not stream:
        return msgspec.json.decode(body)["choices"][0]["message"]["content"] or ""
    said = []
    for data in events_of(body):
        try:
            choices = msgspec.json.decode(data).get("choices") or ()
        except (msgspec.DecodeError, UnicodeDecodeError, AttributeError):
            continue
        said += [each["delta"].get("content") or "" for each in choices if each["index"] == 0]
    return "".join(said)


def _common(kind: str, model: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{next(_ids)}", "object": kind, "created": int(time.time()), "model": model}


def _choice(index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None, finish: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _finish_reason(answer: Answer) -> str:
    return answer.finish_reason or ("tool_calls" if answer.tool_calls else "stop")


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _call_deltas(answer: Answer) -> list[dict[str, Any]]:
    """Name each call first, then send its arguments in two pieces, as providers do."""
    deltas: list[dict[str, Any]] = []
    for index, call in enumerate(answer.tool_calls):
        named = _call(call)
        named["function"]["arguments"] = ""
        deltas.append({"index": index, **named})
        middle = (len(call.arguments) + 1) // 2
        pieces = (call.arguments[:middle], call.arguments[middle:])
        deltas += [{"index": index, "function": {"arguments": piece}} for piece in pieces if piece]
    return deltas


def _logprobs(tokens: list[str], request: ChatRequest) -> dict[str, Any]:
    """Make up log probabilities: well-formed, falling from the first alternative on, and the same every time."""
    content = []
    for token in tokens:
        likely = -0.01 * (1 + len(token) % 7)
        entry = {"token": token, "logprob": likely, "bytes": list(token.encode())}
        others = [
            {"token": f"alt{rank}", "logprob": likely - rank, "bytes": list(f"alt{rank}".encode())}
            for rank in range(1, request.top_logprobs or 0)
        ]
        content.append({**entry, "top_logprobs": [entry, *others] if request.top_logprobs else []})
    return {"content": content, "refusal": None}
