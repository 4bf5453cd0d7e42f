"""The chat-completions dialect: from bytes to a `Request`, what counts as an answer, and the shape of errors.

Nothing here touches a socket. Bodies pass through as they came; only the members a policy needs are read.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from upstack.application.gateway.dialects.raw import NOTHING, told
from upstack.core.errors import Failure, RequestError, SupplyError, UpstackError
from upstack.core.types import Request, Usage
from upstack.inference.cost import read_usage

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = ord("[")
_TEXT = msgspec.json.Decoder(str)
_ENCODE = msgspec.json.Encoder().encode

_CALLER = frozenset({400, 413, 415, 422})  # the provider says that the request itself is wrong
_ELSEWHERE = frozenset({"context_length_exceeded", "unknown_prompt"})  # for this model alone: the next may take it
_DAY = 86400.0
_FAILURES = {401: Failure.AUTH, 403: Failure.AUTH, 404: Failure.NOT_FOUND, 429: Failure.RATE_LIMITED}

# Callers' headers that may go upstream. Everything else, Authorization and cookies first of all, stays here.
FORWARDED = frozenset({b"openai-beta", b"anthropic-beta", b"traceparent", b"tracestate"})


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Message(msgspec.Struct, gc=False):
    """Any object will do."""


class _Choice(msgspec.Struct, gc=False):
    message: _Message


class _Completion(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = NOTHING
    error: Any = None


class _ErrorDetail(msgspec.Struct):
    code: str | int | None = None
    type: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorDetail


_OPTIONS = msgspec.json.Decoder(_StreamOptions | None)
_COMPLETION = msgspec.json.Decoder(_Completion)
_ERROR = msgspec.json.Decoder(_ErrorBody)


def read_request(body: bytes, headers: Mapping[bytes, bytes]) -> Request:
    """Read a request body; `headers` are the caller's, names in lower case.

    Raises RequestError (400) naming the member at fault. Messages, tools and parameters are the provider's to judge.
    """
    try:
        fields = _FIELDS.decode(body)
        if not body.isascii():
            body.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"The body is not UTF-8 (byte {error.start})", code="invalid_utf8") from None
    except msgspec.ValidationError:
        raise RequestError("The body must be a JSON object", code="invalid_json") from None
    except (msgspec.DecodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError(f"The body is not valid JSON: {reason}", code="invalid_json") from None
    raw = fields.get("model")
    if raw is None:
        raise RequestError("You must provide a model", code="missing_model", param="model")
    try:
        model = _TEXT.decode(raw)
    except msgspec.DecodeError:
        raise _wrong_type("model", "a string") from None
    messages = fields.get("messages")
    if messages is None or memoryview(messages)[0] != _ARRAY:
        raise _wrong_type("messages", "an array of messages")
    if len(messages) < len(b"[{}]"):
        raise RequestError("messages is empty: there is nothing to answer", param="messages")
    stream = fields.get("stream")
    streams = stream is not None and _boolean(bytes(stream))
    passed = tuple(pair for pair in headers.items() if pair[0] in FORWARDED) if headers else ()
    return Request(model, streams, streams and _wants_usage(fields), fields, body, passed)


def _boolean(raw: bytes) -> bool:
    if raw == b"true":
        return True
    if raw in {b"false", b"null"}:
        return False
    raise _wrong_type("stream", "true or false")


def _wants_usage(fields: Mapping[str, msgspec.Raw]) -> bool:
    raw = fields.get("stream_options")
    if raw is None:
        return False
    try:
        options = _OPTIONS.decode(raw)
    except msgspec.DecodeError:
        raise _wrong_type("stream_options", "an object like {include_usage: true}") from None
    return options is not None and bool(options.include_usage)


def _wrong_type(param: str, expected: str) -> RequestError:
    return RequestError(f"Invalid type for '{param}': expected {expected}", code="invalid_type", param=param)


def read_answer(body: bytes) -> Usage | None:
    """Check that `body` is a chat completion and return its usage, None where it has none.

    Raises SupplyError: MALFORMED where it is no completion, ERROR_IN_STREAM where a 200 carries an error object.
    """
    try:
        completion = _COMPLETION.decode(body)
        if not body.isascii():
            body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise SupplyError(Failure.MALFORMED, "the answer is not a chat completion in JSON") from None
    if completion.error:
        raise SupplyError(Failure.ERROR_IN_STREAM, "a 200 with an error object in it")
    if not completion.choices:
        raise SupplyError(Failure.MALFORMED, "the answer has no choices")
    return read_usage(completion.usage) if told(completion.usage) else None


def refusal(status: int, headers: Mapping[bytes, bytes], body: bytes) -> SupplyError:
    """Read a provider's answer that is not a 200: whose fault, and when to come back.

    The provider's message is not repeated: it may quote the request, or a key.
    """
    code = _refusal_code(body)
    told = f"HTTP {status}" + (f" {code}" if code else "")
    if status in _CALLER and code is not None and code not in _ELSEWHERE:
        return SupplyError(Failure.CALLER, told, status=status)
    failure = Failure.AUTH if code == "insufficient_quota" else _FAILURES.get(status, Failure.STATUS)
    return SupplyError(failure, told, retry_after=_retry_after(headers))


def _refusal_code(body: bytes) -> str | None:
    """Return the `code` (else the `type`) of an error body; None where it is not in the OpenAI shape."""
    try:
        detail = _ERROR.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    code = str(detail.code) if detail.code is not None else detail.type or ""
    return code if re.fullmatch(r"[\w.-]{0,64}", code) else ""


def _retry_after(headers: Mapping[bytes, bytes]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` (seconds or a date); None where absent or nonsense."""
    try:
        if b"retry-after-ms" in headers:
            return min(_DAY, max(0.0, float(headers[b"retry-after-ms"]) / 1000.0))
        value = headers.get(b"retry-after")
        if value is None:
            return None
        if value[:1].isdigit():
            return min(_DAY, float(value))
        return min(_DAY, max(0.0, parsedate_to_datetime(value.decode("latin-1")).timestamp() - time.time()))
    except (ValueError, OverflowError):
        return None


def error_body(error: UpstackError) -> bytes:
    """Say `error` in the OpenAI error shape."""
    detail = {
        "message": error.message,
        "type": error.type,
        "param": error.param if isinstance(error, RequestError) else None,
        "code": error.code,
    }
    return _ENCODE({"error": detail})


def error_event(error: UpstackError) -> bytes:
    """Say `error` as an event of a stream under way."""
    return b"data: " + error_body(error) + b"\n\n"
