"""The chat-completions dialect: requests, answers, refusals, error bodies."""

from __future__ import annotations

import json
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstack.application.gateway.dialects import chat
from upstack.core.errors import Failure, RequestError, SupplyError
from upstack.testing import make_target

NOW = 1_700_000_000.0  # Unix seconds
MESSAGES = [{"role": "user", "content": "hello"}]


def body(**members: object) -> bytes:
    """A request body."""
    return json.dumps({"model": "a/b", "messages": MESSAGES, **members}).encode()


def test_reads_what_the_policy_needs_and_leaves_the_rest() -> None:
    """Model and stream are read; every other member stays byte for byte."""
    raw = b'{"model":"a/b","messages":[{"role":"user","content":"x"}],"seed":1.50,"new_thing":{"a" : [1]}}'
    request = chat.read_request(raw, {})
    assert (request.model, request.stream, request.wants_usage) == ("a/b", False, False)
    assert bytes(request.fields["seed"]) == b"1.50"
    assert bytes(request.fields["new_thing"]) == b'{"a" : [1]}'


def test_usage_is_wanted_only_of_a_stream_that_asks() -> None:
    """`stream_options.include_usage` counts in a stream alone."""
    options = {"include_usage": True}
    assert chat.read_request(body(stream=True, stream_options=options), {}).wants_usage
    assert not chat.read_request(body(stream=False, stream_options=options), {}).wants_usage
    assert not chat.read_request(body(stream=True, stream_options=None), {}).wants_usage


@pytest.mark.parametrize(
    ("data", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"[]", "invalid_json", None),
        (b'{"model": "a/b", ', "invalid_json", None),
        (b'{"model":"a/b","messages":[{}]}x', "invalid_json", None),
        (b"[" * 200_000, "invalid_json", None),
        (b'{"model":"a/b","messages":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "invalid_json", None),
        (b'{"model":"a/b","messages":[{"content":"\xff"}]}', "invalid_utf8", None),
        (b'{"\xff":1}', "invalid_utf8", None),
        (b'{"messages":[{}]}', "missing_model", "model"),
        (body(model=3), "invalid_type", "model"),
        (body(model=None), "invalid_type", "model"),
        (body(messages="hi"), "invalid_type", "messages"),
        (body(messages=None), "invalid_type", "messages"),
        (body(messages=[]), "invalid_request", "messages"),
        (body(stream="yes"), "invalid_type", "stream"),
        (body(stream=1), "invalid_type", "stream"),
        (body(stream=True, stream_options=[1]), "invalid_type", "stream_options"),
    ],
)
def test_bad_requests_name_what_is_wrong(data: bytes, code: str, param: str | None) -> None:
    """Each malformed body is a 400 with a code and, where one is at fault, the member's name; never its content."""
    with pytest.raises(RequestError) as caught:
        chat.read_request(data, {})
    assert caught.value.status == 400
    assert (caught.value.code, caught.value.param) == (code, param)


@given(
    st.binary(max_size=300)
    | st.text(max_size=100).map(str.encode)
    | st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["model", "messages", "stream", "stream_options", "x"]), inner, max_size=5
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Whatever a caller sends is a request or a RequestError, nothing else."""
    try:
        request = chat.read_request(data, {})
    except RequestError:
        return
    assert isinstance(request.model, str)


def test_only_listed_headers_go_upstream() -> None:
    """The caller's Authorization, cookies and unknown headers stay here."""
    headers = {b"authorization": b"Bearer secret", b"cookie": b"x", b"openai-beta": b"v2", b"connection": b"close"}
    assert chat.read_request(body(), headers).headers == ((b"openai-beta", b"v2"),)


def test_what_connection_names_stays_on_this_hop() -> None:
    """A header that the caller's Connection names is meant for us alone (RFC 9110, 7.6.1)."""
    traced = {b"traceparent": b"00-a", b"tracestate": b"x", b"connection": b"keep-alive, TraceParent"}
    assert chat.read_request(body(), traced).headers == ((b"tracestate", b"x"),)
    kept = {b"traceparent": b"00-a", b"connection": b"Keep-Alive"}
    assert chat.read_request(body(), kept).headers == ((b"traceparent", b"00-a"),)


@pytest.mark.parametrize(
    ("data", "failure"),
    [
        (b"<html>", Failure.MALFORMED),
        (b"", Failure.MALFORMED),
        (b'{"choices":[]}', Failure.MALFORMED),
        (b'{"choices":[{"finish_reason":"stop"}]}', Failure.MALFORMED),
        (b'{"choices":[{"message":{"content":"\xff"}}]}', Failure.MALFORMED),
        (b'{"error":{"message":"x"}}', Failure.ERROR_IN_STREAM),
        (b'{"choices":[{"message":{"content":"cut', Failure.MALFORMED),
    ],
)
def test_what_is_no_answer_is_a_supply_error(data: bytes, failure: Failure) -> None:
    """A 200 that holds no completion counts as a failed attempt."""
    with pytest.raises(SupplyError) as caught:
        chat.read_answer(data)
    assert caught.value.failure is failure


def test_answer_gives_its_usage_or_none() -> None:
    """Usage is read where there is some; where there is none it is unknown, not zero."""
    answer = {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}
    usage = chat.read_answer(json.dumps(answer).encode())
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (5, 7)
    assert chat.read_answer(b'{"choices":[{"message":{}}],"usage":null}') is None


@pytest.mark.parametrize(
    ("status", "code", "failure"),
    [
        (400, "invalid_value", Failure.CALLER),
        (422, None, Failure.CALLER),
        (400, "context_length_exceeded", Failure.UNFIT),
        (413, "rate_limit_exceeded", Failure.UNFIT),
        (401, "invalid_api_key", Failure.AUTH),
        (400, "invalid_api_key", Failure.AUTH),
        (500, "invalid_authentication", Failure.AUTH),
        (429, "rate_limit_exceeded", Failure.RATE_LIMITED),
        (429, "insufficient_quota", Failure.AUTH),
        (404, "model_not_found", Failure.NOT_FOUND),
        (500, None, Failure.STATUS),
        (302, None, Failure.STATUS),
    ],
)
def test_refusals_say_whose_fault(status: int, code: str | None, failure: Failure) -> None:
    """Status and code decide between the caller's fault and the route's; the provider's words are not repeated."""
    told = json.dumps({"error": {"message": "secret words sk-123", "type": "t", "code": code}}).encode()
    error = chat.refusal(status, {}, told, NOW)
    assert error.failure is failure
    assert "secret" not in error.message


GEMINI_KEY = {"status": "INVALID_ARGUMENT", "code": 400, "details": [{"x": 1}, {"reason": "API_KEY_INVALID"}]}


@pytest.mark.parametrize(
    ("status", "told", "failure", "message"),
    [
        (400, [{"error": {"code": 400, "status": "INVALID_ARGUMENT"}}], Failure.CALLER, "HTTP 400 INVALID_ARGUMENT"),
        (400, [{"error": GEMINI_KEY}], Failure.AUTH, "HTTP 400 INVALID_ARGUMENT"),
        (422, {"detail": [{"type": "missing", "loc": ["body"]}]}, Failure.CALLER, "HTTP 422"),
        (400, {"object": "error", "type": "BadRequestError", "code": 400}, Failure.CALLER, "HTTP 400 BadRequestError"),
        (400, {"error": "some words"}, Failure.CALLER, "HTTP 400"),
        (422, {"error": "some words", "error_type": "validation"}, Failure.CALLER, "HTTP 422 validation"),
        (400, {"error": {"type": "exceed_context_size_error", "code": 400}}, Failure.UNFIT, None),
        (400, {"error": {"type": "authentication_error", "code": None}}, Failure.AUTH, None),
        (415, {}, Failure.CALLER, "HTTP 415"),
        (400, [], Failure.CALLER, "HTTP 400"),
        (400, [[[1]]], Failure.CALLER, "HTTP 400"),
        (400, {"error": {"code": 10**400, "type": [1], "details": 7}}, Failure.CALLER, None),
        (400, {"detail": "x" * 2_000_000, "code": "invalid_api_key"}, Failure.CALLER, "HTTP 400"),
        (400, "text", Failure.STATUS, "HTTP 400"),
        (500, {"error": "some words"}, Failure.STATUS, "HTTP 500"),
    ],
)
def test_every_shape_of_a_refusal_is_read(status: int, told: object, failure: Failure, message: str | None) -> None:
    """Each way of writing errors says whose fault it is; a 400 in JSON is the caller's unless it says more."""
    error = chat.refusal(status, {}, json.dumps(told).encode(), NOW)
    assert error.failure is failure
    assert message is None or error.message == message


@pytest.mark.parametrize("told", [b"<html>Bad Request</html>", b"", b"  ", b"{", b"[1", b"[" * 200_000, b'{"a":}'])
def test_a_400_that_is_no_json_is_the_routes_fault(told: bytes) -> None:
    """A proxy's HTML 400 says nothing about the caller's request."""
    assert chat.refusal(400, {}, told, NOW).failure is Failure.STATUS


@given(st.sampled_from([400, 401, 413, 429, 500]), st.binary(max_size=80))
def test_any_refusal_is_read(status: int, told: bytes) -> None:
    """No body of a refusal raises."""
    assert chat.refusal(status, {}, told, NOW).message.startswith(f"HTTP {status}")


CANARY = "sk-canary+0123/4567.89_ab="


@pytest.mark.parametrize(
    "quoted",
    [
        CANARY,
        f"Bearer {CANARY}",
        CANARY.replace("/", "\\/"),
        CANARY.replace("+", "\\u002B").replace("=", "\\u003d"),
    ],
)
def test_our_key_is_never_repeated(quoted: str) -> None:
    """A key that a refusal quotes is starred out, escaped or not, in the body and in the code that is shown."""
    target = make_target("http://127.0.0.1:1/v1", headers=((("authorization", f"Bearer {CANARY}"), ("x-a", "a")),))
    told = f'{{"error":{{"message":"bad key {quoted}, a bad one","code":"{quoted}"}}}}'.encode()
    shown = chat.redacted(told, target)
    assert b"canary" not in shown
    assert b"4567" not in shown
    assert json.loads(shown)["error"]["message"] == "bad key ***, a bad one"
    assert chat.refusal(500, {}, shown, NOW).message == "HTTP 500 ***"


def test_a_body_without_a_key_stays_as_it_is() -> None:
    """Nothing else is replaced, least of all where the credential is empty or a placeholder."""
    told = b'{"error":{"message":"no"}}'
    for value in ("", "Bearer ", "x", "Bearer no", f"Bearer {CANARY}"):
        target = make_target("http://127.0.0.1:1/v1", headers=((("authorization", value),),))
        assert chat.redacted(told, target) == told
    assert chat.redacted(told, make_target("http://127.0.0.1:1/v1", headers=((),))) == told


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({b"retry-after": b"7"}, 7.0, 7.0),
        ({b"retry-after-ms": b"1500", b"retry-after": b"7"}, 1.5, 1.5),
        ({b"retry-after-ms": b"abc", b"retry-after": b"7"}, 7.0, 7.0),
        ({b"retry-after": b"1e400"}, 1.0, 86400.0),
    ],
)
def test_retry_after_is_read(headers: dict[bytes, bytes], low: float, high: float) -> None:
    """Seconds and milliseconds are understood and bounded."""
    wait = chat.refusal(429, headers, b"{}", NOW).retry_after
    assert wait is not None
    assert low <= wait <= high


@pytest.mark.parametrize(("ahead", "wait"), [(20.0, 20.0), (-20.0, 0.0)])
def test_retry_after_may_be_a_date(ahead: float, wait: float) -> None:
    """A date is so many seconds from now; one that has passed is now."""
    date = formatdate(NOW + ahead, usegmt=True).encode()
    assert chat.refusal(429, {b"retry-after": date}, b"{}", NOW).retry_after == wait


@pytest.mark.parametrize("value", [b"soon", b"", b"\xff", b"-5"])
def test_nonsense_in_retry_after_is_ignored(value: bytes) -> None:
    """A Retry-After nobody can read is no Retry-After."""
    assert chat.refusal(429, {b"retry-after": value}, b"{}", NOW).retry_after is None


def test_error_body_is_in_the_openai_shape() -> None:
    """message, type, param and code, as SDKs expect."""
    error = json.loads(chat.error_body(RequestError("no", status=404, code="model_not_found", param="model")))["error"]
    assert error == {"message": "no", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
