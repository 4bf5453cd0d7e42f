"""`check_backend`: what every backend must do, whatever it calls. For those who write one, to run from their tests.

    @pytest.mark.parametrize("check", BACKEND_CHECKS)
    def test_backend(check):
        check(Subject(make_backend, target, requests))

Checks are ordinary functions that run an event loop of their own and raise AssertionError; nothing but plain pytest is
needed. A backend that calls URLs has more to show: see `HTTP_BACKEND_CHECKS`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from upstack.core.types import Request, Target
from upstack.foundation.backends.base import Backend
from upstack.testing.answers import text_of
from upstack.testing.calls import RecordingReceiver, ask

SETTLE_S = 0.05  # in which a callback that must not come would come

MakeBackend = Callable[[], Backend]
Loop = Callable[[], asyncio.AbstractEventLoop]


class Subject(msgspec.Struct, frozen=True):
    """The backend under check, and what to ask of it.

    `make_backend` is called inside the running loop. `requests` are answered with status 200 by `target`: at least two
    whose answers differ, and both plain and streamed ones. `loop` makes the event loop (None: asyncio's own).
    """

    make_backend: MakeBackend
    target: Target
    requests: tuple[Request, ...]
    loop: Loop | None = None

    @property
    def each_kind(self) -> tuple[Request, Request]:
        """A plain request and a streamed one."""
        plain = next(request for request in self.requests if not request.stream)
        return plain, next(request for request in self.requests if request.stream)


def run_check(body: Callable[[Backend], Awaitable[None]], make_backend: MakeBackend, loop: Loop | None) -> None:
    """Run a check on a fresh backend in a fresh loop; what the loop would only have logged fails it as well."""
    unhandled: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        backend = make_backend()
        try:
            await body(backend)
        finally:
            await backend.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
    assert not unhandled, f"unhandled in the event loop: {unhandled[0].get('exception') or unhandled[0]['message']!r}"


def _check(body: Callable[[Backend, Subject], Awaitable[None]]) -> Callable[[Subject], None]:
    @functools.wraps(body)
    def check(subject: Subject) -> None:
        run_check(lambda backend: body(backend, subject), subject.make_backend, subject.loop)

    return check


@_check
async def check_order(backend: Backend, subject: Subject) -> None:
    """The head comes first, then the body, then one end; none of them before `send` has returned, nothing after."""
    for request in subject.requests:
        receiver = await ask(backend, subject.target, request)
        await asyncio.sleep(SETTLE_S)
        expect_answer(receiver)
        assert receiver.body, "the body is empty"
        assert receiver.calls == ["head", *["body"] * (len(receiver.calls) - 2), "end"], receiver.calls


@_check
async def check_send_from_a_callback(backend: Backend, subject: Subject) -> None:
    """The next call can be sent from the last callback of the one before: this is how a plan fails over."""
    for request in subject.requests:
        second = RecordingReceiver()

        def send_next(name: str, request: Request = request, second: RecordingReceiver = second) -> None:
            if name == "end":
                second.send(backend, subject.target, request)

        first = RecordingReceiver(send_next)
        first.send(backend, subject.target, request)
        await second.wait()
        expect_answer(first)
        expect_answer(second)


@_check
async def check_cancel(backend: Backend, subject: Subject) -> None:
    """Nothing comes after `cancel`, be it called at once, from a callback, twice, or when the call is over."""
    for request in subject.each_kind:
        at_once = RecordingReceiver()
        at_once.send(backend, subject.target, request)
        at_once.cancel()
        at_once.cancel()
        inside = [_cancelling(backend, subject, request, name) for name in ("head", "body", "end")]
        await inside[-1].wait()
        await asyncio.sleep(SETTLE_S)
        assert not at_once.calls, f"called after cancel(): {at_once.calls}"
        for receiver in inside:
            assert not receiver.breaches, receiver.breaches
            receiver.cancel()
        expect_answer(await ask(backend, subject.target, request))


@_check
async def check_pause(backend: Backend, subject: Subject) -> None:
    """A call that is paused and resumed at every callback brings the same answer as one that is not."""
    for request in subject.each_kind:
        plain = await ask(backend, subject.target, request)
        receiver = RecordingReceiver()
        receiver.on_call = functools.partial(_pause_and_resume, receiver)
        receiver.send(backend, subject.target, request)
        await receiver.wait()
        expect_answer(receiver)
        assert said(receiver) == said(plain)
        assert receiver.call is not None
        receiver.call.pause()
        receiver.call.resume()
        await asyncio.sleep(SETTLE_S)
        expect_answer(receiver)


@_check
async def check_cancel_while_paused(backend: Backend, subject: Subject) -> None:
    """A paused call can be cancelled, and resuming it then wakes nothing."""
    for request in subject.each_kind:
        receiver = RecordingReceiver()
        call = receiver.send(backend, subject.target, request)
        call.pause()
        await asyncio.sleep(SETTLE_S)
        receiver.cancel()
        call.resume()
        await asyncio.sleep(SETTLE_S)
        assert not receiver.breaches, receiver.breaches


@_check
async def check_concurrent_calls(backend: Backend, subject: Subject) -> None:
    """Calls in flight together bring each its own answer."""
    alone = [said(await ask(backend, subject.target, request)) for request in subject.requests]
    assert len(set(alone)) > 1, "the subject's requests must have answers that differ"
    rounds = 8
    together = await asyncio.gather(
        *[ask(backend, subject.target, request, 10.0) for _ in range(rounds) for request in subject.requests]
    )
    for receiver, expected in zip(together, alone * rounds, strict=True):
        expect_answer(receiver)
        assert said(receiver) == expected


@_check
async def check_close(backend: Backend, subject: Subject) -> None:
    """Closing cancels the calls in flight: nothing is delivered after it."""
    receivers = [RecordingReceiver() for _ in subject.requests]
    for receiver, request in zip(receivers, subject.requests, strict=True):
        receiver.send(backend, subject.target, request).pause()
    await backend.close()
    for receiver in receivers:
        receiver.cancelled = True
    await asyncio.sleep(SETTLE_S)
    for receiver in receivers:
        assert not receiver.breaches, receiver.breaches


BACKEND_CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_order,
    check_send_from_a_callback,
    check_cancel,
    check_pause,
    check_cancel_while_paused,
    check_concurrent_calls,
    check_close,
)


def check_backend(subject: Subject) -> None:
    """Run every check that any backend must pass."""
    for check in BACKEND_CHECKS:
        check(subject)


def expect_answer(receiver: RecordingReceiver, status: int = 200) -> None:
    """Assert that a whole answer came, in order."""
    assert not receiver.breaches, receiver.breaches
    assert receiver.error is None, f"failed: {receiver.error}"
    assert receiver.status == status, f"status {receiver.status}, expected {status}: {receiver.body[:200]!r}"
    assert receiver.calls[-1] == "end", receiver.calls


def said(receiver: RecordingReceiver) -> str:
    """Give the text of the answer that came; AssertionError where it is no chat completion."""
    stream = receiver.headers.get(b"content-type", b"").startswith(b"text/event-stream")
    try:
        return text_of(receiver.body, stream=stream)
    except (msgspec.DecodeError, LookupError, TypeError) as error:
        raise AssertionError(f"the body is no chat completion ({error}): {receiver.body[:100]!r}") from None


def _cancelling(backend: Backend, subject: Subject, request: Request, at: str) -> RecordingReceiver:
    """Send a request whose receiver cancels inside its first callback of this name."""
    receiver = RecordingReceiver()

    def cancel(name: str) -> None:
        if name == at and not receiver.cancelled:
            receiver.cancel()

    receiver.on_call = cancel
    receiver.send(backend, subject.target, request)
    return receiver


def _pause_and_resume(receiver: RecordingReceiver, _name: str) -> None:
    assert receiver.call is not None
    receiver.call.pause()
    asyncio.get_running_loop().call_later(0.002, receiver.call.resume)
