"""What a backend that calls URLs must do besides: failures by name, bytes as they are, no connection mistaken.

    @pytest.mark.parametrize("check", HTTP_BACKEND_CHECKS)
    def test_http(check):
        check(make_backend)

Each check starts the fake providers it needs on loopback. `make_backend` is called inside the running loop; `loop`
makes that (None: asyncio's own).
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from upstack.core.errors import Failure
from upstack.core.types import Request, Target, Timeouts
from upstack.foundation.backends.base import Backend
from upstack.testing.calls import SECRET, RecordingReceiver, ask, make_request, make_target
from upstack.testing.checks import BACKEND_CHECKS, SETTLE_S, Loop, MakeBackend, Subject, expect_answer, run_check, said
from upstack.testing.connection import Recorded
from upstack.testing.faults import Fault
from upstack.testing.flaky import FlakyProvider
from upstack.testing.providers import EchoProvider, FloodProvider, Script, ScriptedProvider
from upstack.testing.server import Blackhole
from upstack.testing.wire import LAST_CHUNK, Move, chunk, head, response

_MIB = 1024 * 1024
# What a loopback connection may hold: kernels tuned for long ways have 32 and 4 MiB (tcp_rmem, tcp_wmem).
_BUFFERS_MOST = 48 * _MIB
_JSON_LINE = ("content-type", "application/json")


class HttpCheck(Protocol):
    """A check of a backend that calls URLs."""

    __name__: str

    def __call__(self, make_backend: MakeBackend, loop: Loop | None = None) -> None:
        """Run it; AssertionError where the backend is at fault."""
        ...


def _check(body: Callable[[Backend], Awaitable[None]]) -> HttpCheck:
    @functools.wraps(body)
    def check(make_backend: MakeBackend, loop: Loop | None = None) -> None:
        run_check(body, make_backend, loop)

    return check


_CUT = {Failure.RESET, Failure.TRUNCATED}
_FAILURES = {
    Fault.REFUSED: {Failure.REFUSED},
    Fault.RESET_BEFORE_HEADERS: {Failure.RESET},
    Fault.RESET_AFTER_HEADERS: _CUT,
    Fault.RESET_MID_BODY: _CUT,
    Fault.RESET_MID_CHUNK: _CUT,
    Fault.CLOSE_BEFORE_HEADERS: _CUT,
    Fault.CLOSE_MID_STREAM: _CUT,
    Fault.SHORT_BODY: _CUT,
    Fault.MALFORMED_HTTP: {Failure.MALFORMED},
    Fault.MALFORMED_CHUNK: {Failure.MALFORMED},
    Fault.LENGTH_AND_CHUNKED: {Failure.MALFORMED},
    Fault.HEADER_FLOOD: {Failure.MALFORMED, Failure.TOO_LARGE},
}
# What comes of each fault that is silence, given these limits.
_TIMEOUTS = Timeouts(connect=0.4, first_byte=0.4, between_bytes=0.4, total=30.0)
_SILENCES = [
    (Fault.STALL_BEFORE_HEADERS, False, _TIMEOUTS, Failure.FIRST_BYTE_TIMEOUT),
    (Fault.STALL_BEFORE_HEADERS, True, _TIMEOUTS, Failure.FIRST_BYTE_TIMEOUT),
    (Fault.STALL_BEFORE_FIRST_TOKEN, False, _TIMEOUTS, Failure.FIRST_BYTE_TIMEOUT),
    (Fault.STALL_BEFORE_FIRST_TOKEN, True, _TIMEOUTS, Failure.BETWEEN_BYTES_TIMEOUT),
    (Fault.STALL_BETWEEN_TOKENS, False, _TIMEOUTS, Failure.BETWEEN_BYTES_TIMEOUT),
    (Fault.STALL_BETWEEN_TOKENS, True, _TIMEOUTS, Failure.BETWEEN_BYTES_TIMEOUT),
    (Fault.SLOW_DRIP, False, Timeouts(total=0.4), Failure.TOTAL_TIMEOUT),
    (Fault.SLOW_DRIP, True, Timeouts(total=0.4), Failure.TOTAL_TIMEOUT),
]
_LATE_S = 1.5  # a timeout may come this much later than its limit


@_check
async def check_failures(backend: Backend) -> None:
    """A connection or answer that breaks is one failure of the right kind, plain and streamed, and shows no secret."""
    for fault, allowed in _FAILURES.items():
        with FlakyProvider(fault) as provider:
            for stream in (False, True):
                receiver = await ask(backend, make_target(provider.base_url), make_request(stream=stream))
                await asyncio.sleep(0)
                _expect_failure(receiver, allowed, f"{fault}, stream={stream}")


@_check
async def check_timeouts(backend: Backend) -> None:
    """Each limit of an attempt ends it with its own failure, not much later than it says, and hangs up."""

    async def silence(fault: Fault, stream: bool, limits: Timeouts, expected: Failure) -> None:
        with FlakyProvider(fault, pause_s=0.02) as provider:
            started = time.monotonic()
            target = make_target(provider.base_url, timeouts=limits)
            receiver = await ask(backend, target, make_request(stream=stream), 10.0)
            _expect_failure(receiver, {expected}, f"{fault}, stream={stream}")
            assert time.monotonic() - started < 0.4 + _LATE_S, f"{fault}: the limit of 0.4 s came too late"
            await eventually(lambda: provider.open_connections == 0, "the connection is closed after a timeout")

    async def no_connection() -> None:
        with Blackhole() as hole:
            receiver = await ask(backend, make_target(hole.base_url, timeouts=_TIMEOUTS), make_request(), 10.0)
            _expect_failure(receiver, {Failure.CONNECT_TIMEOUT}, "a port that does not answer")

    await asyncio.gather(no_connection(), *[silence(*row) for row in _SILENCES])


@_check
async def check_bodies_byte_for_byte(backend: Backend) -> None:
    """However a body is framed and cut, exactly its bytes are delivered, codings removed."""
    body = bytes(range(256)) * 40 + b'\r\n0\r\n\r\n{"data: [DONE]\n\n'
    pieces = [body[:1], body[1:3], body[3:5000], body[5000:]]
    packed = gzip.compress(body)
    chunked = head(200, [_JSON_LINE, ("transfer-encoding", "chunked")])
    gzipped = head(200, [_JSON_LINE, ("content-encoding", "gzip"), ("content-length", str(len(packed)))])
    whole = response(200, body)
    scripts: list[tuple[str, Script, bytes]] = [
        ("content-length", whole, body),
        ("a body in two pieces", [whole[:-1], 0.01, whole[-1:]], body),
        ("a head in two pieces", [whole[:9], 0.01, whole[9:]], body),
        ("chunks", [chunked, *map(chunk, pieces), LAST_CHUNK], body),
        ("chunks cut anywhere", [chunked, *_cut(b"".join(map(chunk, pieces)) + LAST_CHUNK, 3001)], body),
        ("a trailer", [chunked, chunk(body), b"0\r\nx-checksum: 1\r\n\r\n"], body),
        ("no length", [head(200, [_JSON_LINE]), body, Move.CLOSE], body),
        ("gzip", gzipped + packed, body),
        (
            "gzip in chunks",
            [
                head(200, [("content-encoding", "gzip"), ("transfer-encoding", "chunked")]),
                *map(chunk, _cut(packed, 7)),
                LAST_CHUNK,
            ],
            body,
        ),
        ("an interim answer", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + whole, body),
        ("an empty body", response(200, b""), b""),
        ("connection: close", [response(200, body, [("connection", "close")]), Move.CLOSE], body),
    ]
    with ScriptedProvider([script for _, script, _ in scripts]) as provider:
        for name, _, expected in scripts:
            receiver = await ask(backend, make_target(provider.base_url), make_request())
            assert not receiver.breaches, f"{name}: {receiver.breaches}"
            assert receiver.error is None, f"{name}: {receiver.error}"
            assert receiver.body == expected, f"{name}: the body differs ({receiver.size} bytes)"


@_check
async def check_statuses(backend: Backend) -> None:
    """An error status is an answer like any other: its head, Retry-After and body are delivered."""
    for fault in Fault:
        if not fault.startswith("status_"):
            continue
        with FlakyProvider(fault, retry_after_s=7) as provider:
            receiver = await ask(backend, make_target(provider.base_url), make_request())
            expect_answer(receiver, int(fault[7:10]))
            assert receiver.body, f"{fault}: its body is missing"
            if fault in (Fault.STATUS_429, Fault.STATUS_503):
                assert receiver.headers.get(b"retry-after") == b"7", f"{fault}: {dict(receiver.headers)}"


@_check
async def check_request_as_sent(backend: Backend) -> None:
    """The provider gets the route's model, path and credential, and every other field's bytes as the caller wrote them.

    Of the caller's headers none goes up that authorizes, frames, or belongs to one hop.
    """
    odd: dict[str, Any] = {
        "temperature": msgspec.Raw(b"1.50e0"),
        "user": msgspec.Raw(b'"\\u00e9\\/"'),
        "seed": msgspec.Raw(b"1" * 40),
    }
    theirs = [b"authorization", b"proxy-authorization", b"cookie", b"host", b"content-length", b"transfer-encoding"]
    theirs += [b"connection", b"keep-alive", b"te", b"upgrade", b"expect", b"api-key"]
    headers = ((b"x-request-id", b"r-1"), *[(name, b"of-the-caller") for name in theirs])
    request = make_request("x" * 3 * _MIB, headers=headers, **odd)
    keys = ((("api-key", "first"),), (("api-key", "second"),))
    with EchoProvider() as provider:
        for credential, key in enumerate(["first", "second"]):
            target = make_target(
                provider.base_url, model="a/model", credential=credential, headers=keys,
                chat_path="/of/{model}/chat/completions", query=(("api-version", "1 2"),),
            )  # fmt: skip
            expect_answer(await ask(backend, target, request))
            _expect_sent(provider.requests[-1], request, provider.port, key)


@_check
async def check_cancel_hangs_up(backend: Backend) -> None:
    """A call that is cancelled leaves its provider within a second: before the headers, and in mid-stream."""
    for fault in (Fault.STALL_BEFORE_HEADERS, Fault.STALL_BETWEEN_TOKENS):
        with FlakyProvider(fault) as provider:
            receiver = RecordingReceiver()
            receiver.send(backend, make_target(provider.base_url), make_request(stream=True))
            await eventually(lambda: provider.count == 1, "the provider has the request")
            await asyncio.sleep(SETTLE_S)
            receiver.cancel()
            await eventually(lambda: len(provider.disconnects) == 1, f"{fault}: cancelling hangs up", 1.0)
            assert not receiver.breaches, receiver.breaches


@_check
async def check_pause_holds_the_provider(backend: Backend) -> None:
    """A paused call takes no more from its provider than the kernel's buffers hold; resumed, it brings the rest."""
    with FloodProvider(64) as provider:
        receiver = RecordingReceiver()
        call = receiver.send(backend, make_target(provider.base_url), make_request(stream=True))
        await eventually(lambda: receiver.size > 0, "the stream has started")
        call.pause()
        await asyncio.sleep(0.2)
        size = receiver.size
        await asyncio.sleep(0.2)
        assert receiver.size == size, "bytes are delivered while paused"
        assert provider.bytes_accepted < _BUFFERS_MOST, f"{provider.bytes_accepted} bytes were taken while paused"
        call.resume()
        await receiver.wait(20.0)
        expect_answer(receiver)
        assert receiver.size > 63 * _MIB, f"only {receiver.size} bytes came"


@_check
async def check_stale_connections(backend: Backend) -> None:
    """A kept connection that the provider has closed costs no wrong answer: it is replaced, or fails cleanly."""
    with FlakyProvider(Fault.EARLY_CLOSE) as provider:
        for turn in range(10):
            receiver = await ask(backend, make_target(provider.base_url), make_request(f"turn {turn}"))
            if receiver.error is None:
                expect_answer(receiver)
                assert said(receiver) == f"turn {turn}"
            else:
                _expect_failure(receiver, {Failure.STALE, Failure.RESET}, "a stale connection")
            await asyncio.sleep(0.01 * (turn % 2))  # half of them race with the close


@_check
async def check_surplus_is_no_answer(backend: Backend) -> None:
    """What a provider sends beyond an answer's end is never taken for the answer to the next request."""
    good, forged = response(200, b'{"good":1}'), response(200, b'{"forged":1}')
    scripts: list[Script] = [good + forged, good, [good, 0.02, forged], good, good]
    with ScriptedProvider(scripts) as provider:
        for turn in range(len(scripts)):
            receiver = await ask(backend, make_target(provider.base_url), make_request())
            assert b"forged" not in receiver.body, f"request {turn} got bytes sent after another answer's end"
            assert not receiver.breaches, receiver.breaches
            await asyncio.sleep(SETTLE_S)


@_check
async def check_many_calls(backend: Backend) -> None:
    """Many calls at once, plain and streamed, some of which fail, bring each its own answer or failure."""
    with EchoProvider(between_chunks_s=0.002) as echo, FlakyProvider(Fault.RESET_MID_BODY) as flaky:
        good, bad = make_target(echo.base_url), make_target(flaky.base_url)

        async def call(index: int) -> None:
            target: Target = bad if index % 5 == 0 else good
            receiver = await ask(backend, target, make_request(f"call number {index}", stream=index % 2 == 0), 10.0)
            if target is bad:
                _expect_failure(receiver, _CUT, f"call {index}")
                return
            expect_answer(receiver)
            assert said(receiver) == f"call number {index}"

        await asyncio.gather(*[call(index) for index in range(100)])


@_check
async def check_close_hangs_up(backend: Backend) -> None:
    """Closing closes idle connections and those of calls in flight."""
    with EchoProvider() as echo, FlakyProvider(Fault.STALL_BETWEEN_TOKENS) as flaky:
        expect_answer(await ask(backend, make_target(echo.base_url), make_request()))
        receiver = RecordingReceiver()
        receiver.send(backend, make_target(flaky.base_url), make_request(stream=True))
        await eventually(lambda: receiver.size > 0, "the stream has started")
        await backend.close()
        receiver.cancelled = True
        await eventually(lambda: echo.open_connections + flaky.open_connections == 0, "close() hangs up", 1.0)
        assert not receiver.breaches, receiver.breaches


def check_as_any_backend(make_backend: MakeBackend, loop: Loop | None = None) -> None:
    """All of `BACKEND_CHECKS`, with an echo behind the backend."""
    requests: tuple[Request, ...] = tuple(
        make_request(f"this is request {index}", stream=index % 2 == 1) for index in range(6)
    )
    with EchoProvider() as provider:
        for check in BACKEND_CHECKS:
            check(Subject(make_backend, make_target(provider.base_url), requests, loop))


HTTP_BACKEND_CHECKS: tuple[HttpCheck, ...] = (
    check_as_any_backend,
    check_failures,
    check_timeouts,
    check_bodies_byte_for_byte,
    check_statuses,
    check_request_as_sent,
    check_cancel_hangs_up,
    check_pause_holds_the_provider,
    check_stale_connections,
    check_surplus_is_no_answer,
    check_many_calls,
    check_close_hangs_up,
)


def check_http_backend(make_backend: MakeBackend, loop: Loop | None = None) -> None:
    """Run every check that a backend that calls URLs must pass."""
    for check in HTTP_BACKEND_CHECKS:
        check(make_backend, loop)


async def eventually(condition: Callable[[], bool], what: str, timeout_s: float = 5.0) -> None:
    """Wait until a condition holds; AssertionError with `what` where it does not within the time, in seconds."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.005)


def _expect_failure(receiver: RecordingReceiver, allowed: set[Failure], what: str) -> None:
    assert not receiver.breaches, f"{what}: {receiver.breaches}"
    names = " or ".join(sorted(allowed))
    assert receiver.error is not None, f"{what}: came to an end with {receiver.size} bytes, expected {names}"
    assert receiver.error.failure in allowed, f"{what}: {receiver.error.failure} ({receiver.error}), expected {names}"
    assert SECRET not in str(receiver.error), f"{what}: the message shows the credential"


def _expect_sent(sent: Recorded, request: Request, port: int, key: str) -> None:
    assert (sent.method, sent.path.split("?")[0]) == ("POST", "/v1/of/a%2Fmodel/chat/completions"), sent.path
    assert sent.path.split("?")[1] in ("api-version=1+2", "api-version=1%202"), sent.path
    fields = msgspec.json.decode(sent.body, type=dict[str, msgspec.Raw])
    assert msgspec.json.decode(fields.pop("model")) == "a/model"
    expected = {name: bytes(value) for name, value in request.fields.items() if name != "model"}
    assert {name: bytes(value) for name, value in fields.items()} == expected, "fields were rewritten"
    once = {"host": f"127.0.0.1:{port}", "content-length": str(len(sent.body)), "api-key": key, "x-request-id": "r-1"}
    for name, value in once.items():
        assert sent.all(name) == [value], f"{name}: {sent.all(name)}, expected {value!r} once"
    assert [value.split(";")[0] for value in sent.all("content-type")] == ["application/json"]
    leaked = [name for name, value in sent.headers if value == "of-the-caller"]
    assert not leaked, f"the caller's headers went up: {leaked}"


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]
