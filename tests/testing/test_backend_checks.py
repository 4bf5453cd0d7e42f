"""The conformance suites: good backends pass, and each breach of the contract is found by the check that is for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
import uvloop

from upstack.core.errors import Failure, SupplyError
from upstack.core.types import Request, Target, Timeouts
from upstack.foundation.backends.base import Backend, Call, Receiver
from upstack.foundation.backends.openai import OpenAIBackend
from upstack.testing import BACKEND_CHECKS, HTTP_BACKEND_CHECKS, Subject, make_request, make_target
from upstack.testing.answers import Answer, ChatRequest, completion, stream_parts
from upstack.testing.http_checks import HttpCheck

REQUESTS = tuple(make_request(f"request {index}", stream=index % 2 == 1) for index in range(4))
TARGET = make_target("http://127.0.0.1:9/v1")  # the table backend calls nobody


class TableCall:
    """One answer in pieces, a turn of the loop for each."""

    unheard = False

    def __init__(self, steps: list[Callable[[], None]]) -> None:
        self.steps = steps
        self.paused = False
        self.scheduled = False
        self.run()

    def run(self) -> None:
        """See that the next piece will be delivered."""
        if not self.scheduled:
            self.scheduled = True
            asyncio.get_running_loop().call_soon(self.step)

    def step(self) -> None:
        """Deliver the next piece."""
        self.scheduled = False
        if self.steps and not self.paused:
            self.steps.pop(0)()
            self.run()

    def cancel(self) -> None:
        """Deliver nothing more."""
        self.steps = []

    def pause(self) -> None:
        """Deliver nothing until resumed."""
        self.paused = True

    def resume(self) -> None:
        """Go on."""
        self.paused = False
        self.run()


class TableBackend:
    """Echoes out of memory: the smallest backend that keeps the contract."""

    def __init__(self) -> None:
        self.calls: list[TableCall] = []

    def send(self, target: Target, request: Request, receiver: Receiver) -> Call:
        """Answer with the request's own text."""
        call = TableCall(self.steps(request, receiver))
        self.calls.append(call)
        return call

    async def close(self) -> None:
        """Cancel what is in flight."""
        for call in self.calls:
            call.cancel()

    def steps(self, request: Request, receiver: Receiver) -> list[Callable[[], None]]:
        """The callbacks in their order."""
        asked = msgspec.json.decode(request.body, type=ChatRequest)
        answer = Answer(asked.last_user_text)
        if request.stream:
            kind, parts = b"text/event-stream", stream_parts(answer, asked)
            pieces = [*parts.opening, *parts.deltas, *parts.finish]
        else:
            kind, pieces = b"application/json", [completion(answer, asked)]
        steps: list[Callable[[], None]] = [lambda: receiver.on_head(200, {b"content-type": kind})]
        steps += [lambda data=piece: receiver.on_body(data) for piece in pieces]  # type: ignore[misc] # a default
        return [*steps, receiver.on_end]


class InsideSend(TableBackend):
    """Calls back before `send` has returned."""

    def send(self, target: Target, request: Request, receiver: Receiver) -> Call:
        """Deliver the head too soon."""
        call = TableCall(self.steps(request, receiver))
        call.step()
        return call


class EndsTwice(TableBackend):
    """Says twice that the body is whole."""

    def steps(self, request: Request, receiver: Receiver) -> list[Callable[[], None]]:
        """One end too many."""
        return [*super().steps(request, receiver), receiver.on_end]


class FailsAfterTheEnd(TableBackend):
    """Reports a failure of a call that is over."""

    def steps(self, request: Request, receiver: Receiver) -> list[Callable[[], None]]:
        """A failure too many."""
        error = SupplyError(Failure.RESET, "too late")
        return [*super().steps(request, receiver), lambda: receiver.on_failure(error)]


class HeadLast(TableBackend):
    """Sends the body before the head."""

    def steps(self, request: Request, receiver: Receiver) -> list[Callable[[], None]]:
        """The head in the second place."""
        head, first, *rest = super().steps(request, receiver)
        return [first, head, *rest]


class UpperCaseHeaders(TableBackend):
    """Gives headers as they came."""

    def steps(self, request: Request, receiver: Receiver) -> list[Callable[[], None]]:
        """Another head."""
        rest = super().steps(request, receiver)[1:]
        return [lambda: receiver.on_head(200, {b"Content-Type": b"application/json"}), *rest]


class IgnoresCancel(TableBackend):
    """Goes on after it was cancelled."""

    def send(self, target: Target, request: Request, receiver: Receiver) -> Call:
        """Make a call that cannot be cancelled."""
        call = TableCall(self.steps(request, receiver))
        call.cancel = lambda: None  # type: ignore[method-assign] # the breach
        return call


class WakesWhenResumed(TableBackend):
    """Forgets on `resume` that the call was cancelled."""

    def send(self, target: Target, request: Request, receiver: Receiver) -> Call:
        """Make a call that lives again."""
        call = TableCall(self.steps(request, receiver))
        steps = list(call.steps)
        resume = call.resume

        def wake() -> None:
            call.steps = call.steps or steps
            resume()

        call.resume = wake  # type: ignore[method-assign] # the breach
        return call


class LosesWhatWasPaused(TableBackend):
    """Drops pieces that are due while it is paused."""

    def send(self, target: Target, request: Request, receiver: Receiver) -> Call:
        """Make a call that forgets."""
        call = TableCall(self.steps(request, receiver))

        def lose() -> None:
            del call.steps[:-1]

        call.pause = lose  # type: ignore[method-assign] # the breach
        return call


class MixesCalls(TableBackend):
    """Gives the latest request's answer to all calls in flight."""

    latest: Request

    def send(self, target: Target, request: Request, receiver: Receiver) -> Call:
        """Remember the request, and answer the one remembered later."""
        self.latest = request
        call = TableCall([])

        def fill() -> None:
            call.steps = self.steps(self.latest, receiver)

        call.steps = [fill]
        call.run()
        self.calls.append(call)
        return call


class LeavesCallsOpen(TableBackend):
    """Forgets its calls when it is closed."""

    async def close(self) -> None:
        """Do nothing, and let what was paused go on."""
        for call in self.calls:
            call.resume()


class RaisesInTheLoop(TableBackend):
    """Leaves an exception to the event loop."""

    def steps(self, request: Request, receiver: Receiver) -> list[Callable[[], None]]:
        """Fail beside the call."""
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        return super().steps(request, receiver)


def run(check: Callable[[Subject], None], make_backend: Callable[[], Backend]) -> None:
    """Run one check of any backend."""
    check(Subject(make_backend, TARGET, REQUESTS, uvloop.new_event_loop))


@pytest.mark.parametrize("check", BACKEND_CHECKS)
def test_a_good_backend_passes(check: Callable[[Subject], None]) -> None:
    """The table backend keeps the contract."""
    run(check, TableBackend)


@pytest.mark.parametrize(
    ("breach", "names"),
    [
        (InsideSend, {"check_order", "check_send_from_a_callback"}),
        (EndsTwice, {"check_order"}),
        (FailsAfterTheEnd, {"check_order"}),
        (HeadLast, {"check_order"}),
        (UpperCaseHeaders, {"check_order"}),
        (IgnoresCancel, {"check_cancel", "check_cancel_while_paused"}),
        (WakesWhenResumed, {"check_cancel_while_paused"}),
        (LosesWhatWasPaused, {"check_pause"}),
        (MixesCalls, {"check_concurrent_calls"}),
        (LeavesCallsOpen, {"check_close"}),
        (RaisesInTheLoop, {"check_order"}),
    ],
)
def test_a_breach_is_found(breach: type[TableBackend], names: set[str]) -> None:
    """A backend that breaks one rule fails the checks of that rule."""
    for check in BACKEND_CHECKS:
        if check.__name__ in names:
            with pytest.raises(AssertionError):
                run(check, breach)


def make_openai() -> OpenAIBackend:
    """The backend for OpenAI-compatible URLs, without the machine's proxies."""
    return OpenAIBackend(environ={})


@pytest.mark.parametrize("check", HTTP_BACKEND_CHECKS)
def test_the_openai_backend_passes(check: HttpCheck) -> None:
    """The backend of the gateway passes what it must, on the loop that the gateway runs on."""
    check(make_openai, uvloop.new_event_loop)


class Between:
    """Stands between a backend and its receiver."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def on_head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        """Pass the head on."""
        self.receiver.on_head(status, headers)

    def on_body(self, data: bytes) -> None:
        """Pass a piece on."""
        self.receiver.on_body(data)

    def on_end(self) -> None:
        """Pass the end on."""
        self.receiver.on_end()

    def on_failure(self, error: SupplyError) -> None:
        """Pass a failure on."""
        self.receiver.on_failure(error)


class Spoilt:
    """The OpenAI backend with one thing wrong; what, is in its subclasses."""

    def __init__(self) -> None:
        self.inner = make_openai()

    def target(self, target: Target) -> Target:
        """Change what is called."""
        return target

    def request(self, request: Request) -> Request:
        """Change what is asked."""
        return request

    def receiver(self, receiver: Receiver) -> Receiver:
        """Change what is delivered."""
        return receiver

    def call(self, call: Call) -> Call:
        """Change what can be done about it."""
        return call

    def send(self, target: Target, request: Request, receiver: Receiver) -> Call:
        """Send, with all that changed."""
        return self.call(self.inner.send(self.target(target), self.request(request), self.receiver(receiver)))

    async def close(self) -> None:
        """Close."""
        await self.inner.close()


class EndsOnFailure(Spoilt):
    """Takes a cut answer for a whole one."""

    def receiver(self, receiver: Receiver) -> Receiver:
        """Turn failures after the head into ends."""

        class Ending(Between):
            headed = False

            def on_head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
                self.headed = True
                super().on_head(status, headers)

            def on_failure(self, error: SupplyError) -> None:
                if self.headed:
                    self.on_end()
                else:
                    super().on_failure(error)

        return Ending(receiver)


class NamesNoFailure(Spoilt):
    """Calls every failure a reset, and quotes the credential."""

    def receiver(self, receiver: Receiver) -> Receiver:
        """Rename failures."""

        class Renaming(Between):
            def on_failure(self, error: SupplyError) -> None:
                super().on_failure(SupplyError(Failure.RESET, "it broke"))

        return Renaming(receiver)


class QuotesTheCredential(Spoilt):
    """Shows the secret in its messages."""

    def send(self, target: Target, request: Request, receiver: Receiver) -> Call:
        """Put the headers into every message."""
        secret = str(target.route.provider.headers)

        class Quoting(Between):
            def on_failure(self, error: SupplyError) -> None:
                super().on_failure(SupplyError(error.failure, f"{error} with {secret}"))

        return self.inner.send(target, request, Quoting(receiver))


class KnowsNoTimeouts(Spoilt):
    """Waits for ever."""

    def target(self, target: Target) -> Target:
        """Take the limits away."""
        provider = msgspec.structs.replace(target.route.provider, timeouts=Timeouts(60, 60, 60, 60))
        return msgspec.structs.replace(target, route=msgspec.structs.replace(target.route, provider=provider))


class LosesAByte(Spoilt):
    """Strips what looks like blanks."""

    def receiver(self, receiver: Receiver) -> Receiver:
        """Strip each piece."""

        class Stripping(Between):
            def on_body(self, data: bytes) -> None:
                super().on_body(data.strip())

        return Stripping(receiver)


class RewritesFields(Spoilt):
    """Decodes and encodes the fields, which changes how numbers and strings are written."""

    def request(self, request: Request) -> Request:
        """Write them anew."""
        fields = {name: msgspec.json.decode(value) for name, value in request.fields.items()}
        written = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields.items()}
        return msgspec.structs.replace(request, fields=written)


class ReadsOnWhilePaused(Spoilt):
    """Knows no back-pressure."""

    def call(self, call: Call) -> Call:
        """Make pausing do nothing."""

        class Reading:
            unheard = False
            cancel = staticmethod(call.cancel)

            def pause(self) -> None: ...
            def resume(self) -> None: ...

        return Reading()


class OnlyForgets(Spoilt):
    """Stops delivering when cancelled, and stays connected."""

    def send(self, target: Target, request: Request, receiver: Receiver) -> Call:
        """Make cancelling silent."""

        class Forgetting(Between):
            gone = False

            def __getattribute__(self, name: str) -> Any:
                if name.startswith("on_") and object.__getattribute__(self, "gone"):
                    return lambda *_: None
                return object.__getattribute__(self, name)

        between = Forgetting(receiver)
        inner = self.inner.send(target, request, between)

        class Silent:
            unheard = False
            pause = staticmethod(inner.pause)
            resume = staticmethod(inner.resume)

            def cancel(self) -> None:
                between.gone = True

        return Silent()


class ClosesNothing(Spoilt):
    """Leaves connections open, until it is asked a second time."""

    asked = False

    async def close(self) -> None:
        """Do nothing at first."""
        if self.asked:
            await super().close()
        self.asked = True


@pytest.mark.parametrize(
    ("breach", "name"),
    [
        (EndsOnFailure, "check_failures"),
        (NamesNoFailure, "check_failures"),
        (QuotesTheCredential, "check_failures"),
        (NamesNoFailure, "check_timeouts"),
        (LosesAByte, "check_bodies_byte_for_byte"),
        (RewritesFields, "check_request_as_sent"),
        (OnlyForgets, "check_cancel_hangs_up"),
        (ReadsOnWhilePaused, "check_pause_holds_the_provider"),
        (EndsOnFailure, "check_many_calls"),
        (ClosesNothing, "check_close_hangs_up"),
    ],
)
def test_a_breach_on_the_wire_is_found(breach: type[Spoilt], name: str) -> None:
    """A backend that calls URLs and breaks one rule fails the check of that rule."""
    check = next(check for check in HTTP_BACKEND_CHECKS if check.__name__ == name)
    with pytest.raises(AssertionError):
        check(breach, asyncio.new_event_loop)
