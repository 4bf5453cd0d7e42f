"""The chat-completions dialect: from bytes to a `Request`, what counts as an answer, and the shape of errors.

Nothing here touches a socket. Bodies pass through as they came; only the members a policy needs are read.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from upstack.application.gateway.dialects.raw import NOTHING, told
from upstack.core.errors import Failure, RequestError, SupplyError, UpstackError
from upstack.core.mistakes import unreadable
from upstack.core.types import Request, Target, Usage
from upstack.inference.cost import read_usage

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY, _OBJECT = ord("["), ord("{")
_CODE = re.compile(r"[\w.*-]{1,64}")  # the stars are of a key that was quoted as a code
_TEXT = msgspec.json.Decoder(str)
_ENCODE = msgspec.json.Encoder().encode

_CALLER = frozenset({400, 413, 415, 422})  # the provider says that the request itself is wrong
# Codes of a refusal, in lower case. Wrong for this model or account alone: the plan's next one may take it.
_ELSEWHERE = frozenset(
    {
        "context_length_exceeded",  # OpenAI and most
        "exceed_context_size_error",  # llama.cpp
        "string_above_max_length",  # OpenAI
        "unsupported_parameter",
        "unsupported_value",
        "request_too_large",  # Anthropic
        "tokens_limit_reached",  # GitHub Models
        "unknown_prompt",  # our own replay: it has no recorded answer
        "rate_limit_exceeded",  # Groq, with 413: more tokens than the account may send in a minute
    }
)
# Our key or account: not the caller's fault, whatever the status.
_OURS = frozenset(
    {
        "invalid_api_key",
        "incorrect_api_key",
        "api_key_invalid",  # Gemini, with 400
        "api_key_expired",
        "authentication_error",
        "authenticationerror",
        "authentication_failed",
        "invalid_authentication",
        "invalid_authentication_error",
        "unauthenticated",
        "unauthorized",
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "account_deactivated",
    }
)
_LARGEST_REFUSAL = 1024 * 1024  # bytes of a body that is looked into for codes
_SHORTEST_SECRET = 4  # characters; below that it is a placeholder such as "x", and replacing it would garble any text
_DAY = 86400.0
_LONGEST_NAME = 200  # characters of an episode or a subject
_FAILURES = {401: Failure.AUTH, 403: Failure.AUTH, 404: Failure.NOT_FOUND, 429: Failure.RATE_LIMITED}

# Callers' headers that may go upstream. Everything else, Authorization and cookies first of all, stays here.
FORWARDED = frozenset({b"openai-beta", b"anthropic-beta", b"traceparent", b"tracestate"})

_PLAIN_CONNECTION = frozenset({b"close", b"keep-alive", b"Keep-Alive"})  # names no header of this hop alone


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Metadata(msgspec.Struct):
    upstack_episode: str | None = None
    upstack_subject: str | None = None


class _Message(msgspec.Struct, gc=False):
    """Any object will do."""


class _Choice(msgspec.Struct, gc=False):
    message: _Message


class _Completion(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = NOTHING
    error: Any = None


_METADATA = msgspec.json.Decoder(_Metadata)
_OPTIONS = msgspec.json.Decoder(_StreamOptions | None)
_COMPLETION = msgspec.json.Decoder(_Completion)


def read_request(body: bytes, headers: Mapping[bytes, bytes]) -> Request:
    """Read a request body; `headers` are the caller's, names in lower case.

    Raises RequestError (400) naming the member at fault. Messages, tools and parameters are the provider's to judge.
    """
    try:
        fields = _FIELDS.decode(body)
        if not body.isascii():
            body.decode()
    except msgspec.ValidationError:
        raise RequestError("The body must be a JSON object", code="invalid_json") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable(error) from None
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
    if memoryview(messages)[1] != _OBJECT:
        _look_for_messages(bytes(messages))
    stream = fields.get("stream")
    streams = stream is not None and _boolean(bytes(stream))
    passed: tuple[tuple[bytes, bytes], ...] = ()
    if not FORWARDED.isdisjoint(headers):
        passed = tuple(pair for pair in headers.items() if pair[0] in FORWARDED)
    if passed and headers.get(b"connection", b"close") not in _PLAIN_CONNECTION:
        hop = {name.strip() for name in headers[b"connection"].lower().split(b",")}  # RFC 9110, 7.6.1
        passed = tuple(pair for pair in passed if pair[0] not in hop)
    episode, subject = _belongs(fields.get("metadata"), headers)
    return Request(model, streams, streams and _wants_usage(fields), fields, body, passed, episode, subject)


def _belongs(metadata: msgspec.Raw | None, headers: Mapping[bytes, bytes]) -> tuple[str | None, str | None]:
    """The episode and the subject of a request, from its headers, else from its metadata."""
    episode, subject = headers.get(b"x-upstack-episode"), headers.get(b"x-upstack-subject")
    if metadata is episode is subject is None:
        return None, None
    told = _Metadata()
    if metadata is not None:
        with contextlib.suppress(msgspec.DecodeError):  # of another shape: the provider's to judge
            told = _METADATA.decode(metadata)
    return _name("episode", episode, told.upstack_episode), _name("subject", subject, told.upstack_subject)


def _name(what: str, header: bytes | None, member: str | None) -> str | None:
    name = member if header is None else header.decode("utf-8", "replace").strip()
    if name is not None and not (0 < len(name) <= _LONGEST_NAME and name.isprintable()):
        message = f"x-upstack-{what}: 1 to {_LONGEST_NAME} printable characters are expected"
        raise RequestError(message, code="invalid_name", param=f"x-upstack-{what}")
    return name


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


def _look_for_messages(messages: bytes) -> None:
    first = messages[1:-1].lstrip()
    if not first:
        raise RequestError("messages is empty: there is nothing to answer", param="messages")
    if first[0] != _OBJECT:
        raise _wrong_type("messages", "an array of messages")


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


def refusal(status: int, headers: Mapping[bytes, bytes], body: bytes, now: float) -> SupplyError:
    """Read a provider's answer that is not a 200: whose fault, and when to come back. `now` is in Unix seconds.

    `body` is to be `redacted` before: it may quote a key, also as its code. The provider's message is not repeated: it
    may quote the request.
    """
    codes = _refusal_codes(body)
    shown = next((code for code in codes or () if code != str(status)), "")
    message = f"HTTP {status} {shown}".rstrip()
    known = {code.lower() for code in codes or ()}
    if not known.isdisjoint(_OURS):
        return SupplyError(Failure.AUTH, message, retry_after=_retry_after(headers, now))
    if status in _CALLER and codes is not None:
        failure = Failure.CALLER if known.isdisjoint(_ELSEWHERE) else Failure.UNFIT
        return SupplyError(failure, message, status=status)
    return SupplyError(_FAILURES.get(status, Failure.STATUS), message, retry_after=_retry_after(headers, now))


def redacted(body: bytes, target: Target) -> bytes:
    """Put `***` for every credential of `target` in a refusal's body, also where JSON escapes a part of it."""
    for _, value in target.route.provider.headers[target.credential]:
        for secret in (value, value.partition(" ")[2]):  # the second: without its scheme, as in "Bearer ..."
            if len(secret) >= _SHORTEST_SECRET:
                body = re.sub(b"".join(map(_maybe_escaped, secret)), b"***", body)
    return body


def _maybe_escaped(character: str) -> bytes:
    plain = re.escape(character.encode())
    if character.isalnum() or character in "-._":
        return plain
    return rb"(?:\\?%b|(?i:\\u%04x))" % (plain, ord(character))


def _refusal_codes(body: bytes) -> list[str] | None:
    """Return what a refusal's body gives for codes, the most telling first; None where it is no JSON object or array.

    Shapes: OpenAI's `{"error": {"code", "type"}}`, the same in a list and with a `status` and `details` (Gemini), flat
    (vLLM), with a text for its `error` and an `error_type` (TGI), or with none of these (`{"detail": [...]}`, FastAPI).
    """
    try:
        if not body.lstrip().startswith((b"{", b"[")):
            return None
        whole = msgspec.json.decode(body, type=msgspec.Raw if len(body) > _LARGEST_REFUSAL else Any)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(whole, list):
        whole = whole[0] if whole else None
    if not isinstance(whole, dict):
        return []
    detail = whole["error"] if isinstance(whole.get("error"), dict) else whole
    details = detail.get("details")
    found = [detail.get(name) for name in ("code", "type", "status", "error_type")]
    found += [part.get("reason") for part in details if isinstance(part, dict)] if isinstance(details, list) else []
    return [str(code) for code in found if isinstance(code, str | int) and _CODE.fullmatch(str(code))]


def _retry_after(headers: Mapping[bytes, bytes], now: float) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` (seconds or a date); None where absent or nonsense."""
    for name, unit in ((b"retry-after-ms", 0.001), (b"retry-after", 1.0)):
        value = headers.get(name, b"")
        with contextlib.suppress(ValueError, OverflowError):
            if value[:1].isdigit():
                return min(_DAY, float(value) * unit)
            if value:
                return min(_DAY, max(0.0, parsedate_to_datetime(value.decode("latin-1")).timestamp() - now))
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
