"""One request, from its bytes to its durable answer: the plan is run here, by callbacks.

    begin -> decide -> attempt -> (fail over | retry)* -> answer -> receipt durable -> the answer's end goes out

The decisions are elsewhere and pure (`router`, `cascade`, `receipts`, the dialect); this file only carries them out.
It knows neither uvicorn nor ASGI: whoever has a caller gives a `Sink`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from upstack.application.gateway.auth import Caller, may_ask
from upstack.application.gateway.dialects import chat
from upstack.application.gateway.dialects.chat_stream import DONE, ChatStream, choices_wanted
from upstack.application.gateway.lines import EVENTS, JSON, lines, retry_after
from upstack.application.gateway.sink import Sink
from upstack.application.gateway.trial import Trial
from upstack.core.errors import Failure, LedgerError, LimitError, SupplyError, UpstackError
from upstack.core.telemetry import detail, tell_request
from upstack.core.types import Attempt, Capture, Plan, Receipt, ReceiptState, Request, Usage
from upstack.inference.cascade import Tried, next_step, summary
from upstack.inference.receipts import Asked, Ending, finish, surely_free
from upstack.inference.router import decide

if TYPE_CHECKING:
    from upstack.application.gateway.gateway import Gateway
    from upstack.application.gateway.limits.meters import Hold
    from upstack.foundation.backends.base import Call

_STREAM = b"text/event-stream"
LEASE_WAIT = 0.02  # seconds between looks at whether a share of a budget has come
LEASE_WAITS = 100
LINGER = 1.0  # seconds a provider may take to end its body after its stream said [DONE]

_LEAST: tuple[Capture, ...] = ("none", "hash", "full")
_CALLERS = frozenset({Failure.CALLER, Failure.UNFIT})


class Exchange:
    """A request in flight. Implements `Receiver`; the sink calls `gone`, `pause` and `resume`."""

    __slots__ = (
        "_attempts",
        "_began",
        "_call",
        "_caller",
        "_created",
        "_early",
        "_flows",
        "_gateway",
        "_hold",
        "_known",
        "_note",
        "_opened",
        "_out",
        "_over",
        "_plan",
        "_receipt",
        "_request",
        "_timer",
        "_trial",
        "_tried",
        "_waits",
        "id",
        "sink",
    )

    _request: Request
    _plan: Plan
    _out: tuple[int, bytes, bytes]
    _receipt: Receipt

    def __init__(self, gateway: Gateway, sink: Sink, caller: Caller | None = None) -> None:
        self._gateway = gateway
        self._caller = caller
        self.sink = sink
        self._began = gateway.clock.monotonic()
        self._created = gateway.clock.time()
        self.id = gateway.new_id(self._created)
        self._attempts: list[Attempt] = []
        self._tried: list[Tried] = []
        self._call: Call | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._hold: Hold | None = None
        self._note: str | None = None
        self._waits = 0  # for a share of a budget
        self._trial: Trial | None = None  # the attempt under way, or the last one
        self._known = False  # the ledger knows of the stream: its first byte may go out
        self._opened = False  # committed to this attempt: the caller has its first byte, or will
        self._flows = False  # the caller has its first byte
        self._early: list[bytes] | None = None  # what a committed stream waits with until it is known
        self._over = False  # how it ends is decided; only the receipt is waited for

    def begin(self, body: bytes, headers: Mapping[bytes, bytes]) -> None:
        """Read the request, choose its plan, make the first attempt."""
        gateway = self._gateway
        try:
            gateway.admit()
            self._request = chat.read_request(body, headers)
            may_ask(self._caller, self._request.model)
            state = gateway.state_for(self._request.model)
            plan = decide(self._request, state, self._began, gateway.rng)
            if self._caller is not None and self._caller.capture is not None:
                plan = replace(plan, capture=min(plan.capture, self._caller.capture, key=_LEAST.index))
            if plan.shadow_rate and gateway.checking is not None:
                plan = gateway.checking.toss(plan)
        except UpstackError as error:
            self.refuse(error)
            return
        self.run(plan)

    def check(self, request: Request, plan: Plan) -> None:
        """Ask beside an answer."""
        self._request = request
        self.run(plan)

    def run(self, plan: Plan) -> None:
        """Make the first attempt, if no limit is in the way."""
        self._plan = plan
        gateway = self._gateway
        try:
            self._hold = gateway.meters.enter(self._caller, plan, self._request, self._created)
        except LimitError as error:
            self._deny(error)
            return
        gateway.live.add(self)
        self._attempt(0)

    def gone(self) -> None:
        """The caller left: cancel the provider, keep the record."""
        if self._over:
            return
        trial = self._trial
        if trial is not None and self._call is not None:
            self._add(self._record(trial, "cancelled", trial.usage, billed=True))
        self._stop()
        self._end("cancelled", 499, "client_gone", answer=_streamed(trial))

    def pause(self) -> None:
        """The caller does not read: read no more from the provider."""
        if self._call is not None and not self._over:
            self._call.pause()

    def resume(self) -> None:
        """The caller reads again."""
        if self._call is not None and not self._over and self._early is None:
            self._call.resume()

    def expire(self) -> None:
        """The gateway stops and waits no longer: end as a failure."""
        if self._over:
            return
        error = SupplyError(Failure.STOPPING, "the gateway is stopping")
        if self._call is not None:
            self._note_failure(error)
        self._stop()
        self._fail_for_good(error)

    # -- attempts ----------------------------------------------------------------------------------------------

    def _attempt(self, index: int) -> None:
        gateway = self._gateway
        self._timer = None
        now = gateway.clock.monotonic()
        if self._hold is not None:
            refusal = self._hold.reserve(now)
            if refusal is not None:
                self._refused(refusal, index)
                return
        target = self._plan.targets[index]
        self._trial = trial = Trial(target, index, now)
        if gateway.health.resting:
            gateway.health.started(target.key, now)
        if self._request.stream or self._plan.coin is not None:
            self._announce(trial)
        self._call = gateway.backends[target.route.provider.backend].send(target, self._request, self)
        if self.sink.paused:
            self._call.pause()

    def on_head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        """Receive the provider's status and headers."""
        trial = self._trial
        assert trial is not None  # noqa: S101 - it was asked
        trial.status, trial.head = status, headers
        request = self._request
        if status == 200 and request.stream and headers.get(b"content-type", b"").lower().startswith(_STREAM):
            kept = self._plan.capture != "none" and self._gateway.receipts != "off"
            trial.stream = ChatStream(
                strip_usage=not request.wants_usage,
                keep=self._gateway.limits.max_answer_bytes if kept else 0,
                choices=choices_wanted(request.fields["n"]) if "n" in request.fields else 1,
            )
            if self._call is not None:
                self._call.unheard = True  # until its first content

    def on_body(self, data: bytes) -> None:
        """Receive a piece of the body."""
        trial = self._trial
        assert trial is not None  # noqa: S101 - it was asked
        if trial.first_byte is None:
            trial.first_byte = self._gateway.clock.monotonic()
        stream = trial.stream
        if stream is None:
            trial.body.append(data)
            trial.size += len(data)
            if trial.size > self._gateway.limits.max_answer_bytes:
                limit = self._gateway.limits.max_answer_bytes
                self._fail(SupplyError(Failure.TOO_LARGE, f"the answer is above server.max_answer_bytes ({limit})"))
        elif not self._over:
            data = stream.feed(data)
            if data and self._flows and stream.broken is None and not stream.done:  # as nearly always
                self.sink.write(data)
            else:
                self._pass_on(stream, data, ended=False)

    def on_end(self) -> None:
        """The body is whole."""
        self._call = None
        trial = self._trial
        if self._over or trial is None:
            return
        if trial.stream is not None:
            self._pass_on(trial.stream, trial.stream.end(), ended=True)
            return
        body = trial.whole()
        if trial.status != 200:
            body = chat.redacted(body, trial.target)
            trial.body = [body]
            self._fail(chat.refusal(trial.status or 0, trial.head, body, self._gateway.clock.time()))
        elif self._request.stream:
            kind = trial.head.get(b"content-type", b"no content type")[:60].decode("latin-1")
            self._fail(SupplyError(Failure.MALFORMED, f"asked for a stream, got {kind}"))
        else:
            self._finish_whole(trial, body)

    def on_failure(self, error: SupplyError) -> None:
        """The call broke."""
        self._call = None
        if not self._over:
            self._fail(error)

    def _pass_on(self, stream: ChatStream, data: bytes, *, ended: bool) -> None:
        if data:
            if self._flows:
                self.sink.write(data)
            elif self._early is not None:
                self._early.append(data)
            elif stream.committed:
                self._open(data)
        if stream.broken is not None:
            self._fail(stream.broken)
        elif ended or stream.done:
            self._finish_stream(stream)

    def _announce(self, trial: Trial) -> None:
        """Tell the ledger that a stream may begin: its commit and the provider's first token are waited for at once."""
        opening = [*self._attempts, self._record(trial, None, None, billed=True)]
        receipt = self._make_receipt("open", 200, None, opening, None)
        self._gateway.record_opening(receipt, None if self._known else self._announced)

    def _announced(self, error: LedgerError | None) -> None:
        """The ledger knows of the stream, or it cannot and there will be none."""
        if self._over or self._known:
            return  # the receipt that follows decides; of a stream known by an earlier attempt too
        if error is None:
            self._known = True
            self._send_early()
            if self._call is not None and not self.sink.paused:
                self._call.resume()
            return
        if self._trial is not None and self._call is not None:
            self._add(self._record(self._trial, "cancelled", None, billed=True))
        self._stop()
        self._opened, self._early = False, None
        self._out = (error.status, JSON, chat.error_body(error))
        self._end("failed", error.status, error.code)

    def _open(self, data: bytes) -> None:
        """Commit: from here on the caller sees this route."""
        self._opened = True
        if self._call is not None:
            self._call.unheard = False
        if self._known:
            self._flows = True
            self.sink.open(self._headers(EVENTS), data)
            return
        self._early = [data]
        if self._call is not None:
            self._call.pause()

    def _send_early(self) -> None:
        if self._early is not None:
            self._flows = True
            self.sink.open(self._headers(EVENTS), b"".join(self._early))
            self._early = None

    def _stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- ends --------------------------------------------------------------------------------------------------

    def _finish_whole(self, trial: Trial, body: bytes) -> None:
        try:
            usage = chat.read_answer(body)
        except SupplyError as error:
            self._fail(error)
            return
        self._add(self._answered(trial, usage))
        self._out = (200, self._headers(JSON), body)
        self._end("answered", 200, None, answer=body)

    def _finish_stream(self, stream: ChatStream) -> None:
        held = stream.take_held()  # an answer may rightly have no content at all
        assert self._trial is not None  # noqa: S101 - the stream is its
        self._add(self._answered(self._trial, stream.usage))
        if not self._opened:
            self._open(held)
        call, self._call = self._call, None
        if call is not None and stream.done:
            call.resume()
            self._gateway.loop.call_later(LINGER, call.cancel)
        self._out = (200, b"", DONE)
        self._end("answered", 200, None, answer=stream.answer())

    def _fail(self, error: SupplyError) -> None:
        """End this attempt as failed; go on with the plan if the caller has seen nothing yet."""
        gateway = self._gateway
        self._stop()
        self._note_failure(error)
        now = gateway.clock.monotonic()
        if self._trial is not None:
            gateway.health.failed(self._trial.target.key, error, now)
        if self._opened:
            self._fail_for_good(error)
            return
        step = next_step(self._plan, self._tried, gateway.rng, gateway.health.held, now)
        if step is None:
            self._fail_for_good(error)
        elif step.delay:
            self._timer = gateway.loop.call_later(step.delay, self._attempt, step.index)
        else:
            self._attempt(step.index)

    def _note_failure(self, error: SupplyError) -> None:
        trial = self._trial
        assert trial is not None  # noqa: S101 - it failed
        billed = not surely_free(error.failure, trial.status)
        self._add(self._record(trial, error.failure.value, trial.usage, billed=billed))
        self._tried.append(Tried(trial.index or 0, error))

    def _fail_for_good(self, error: SupplyError) -> None:
        trial = self._trial
        if trial is not None and self._opened:
            message = f"{trial.target.route.name}: {error.message}; the answer is incomplete"
            self._out = (200, b"", chat.error_event(SupplyError(error.failure, message)))
            self._end("truncated", 200, error.code, answer=_streamed(trial))
            return
        if trial is not None and error.failure in _CALLERS:  # the provider's own words about the caller's request
            status = trial.status or 400
            self._out = (status, self._headers(JSON), trial.whole())
            self._end("failed", status, error.code)
            return
        shown = summary(self._plan, self._tried)
        self._out = (shown.status, self._headers(JSON + retry_after(shown.retry_after)), chat.error_body(shown))
        self._end("failed", shown.status, shown.code)

    def _refused(self, refusal: LimitError, index: int) -> None:
        """Wait a moment where this host is about to get more of a budget, else end."""
        if refusal.pending and self._waits < LEASE_WAITS:
            self._waits += 1
            self._timer = self._gateway.loop.call_later(LEASE_WAIT, self._attempt, index)
        elif refusal.pending:
            message = "The budget is shared with other hosts, and no share of it could be had: is the ledger reachable?"
            self._deny(LimitError(message, code="budget_unknown", status=503, retry_after=1.0))
        else:
            self._deny(refusal)

    def _deny(self, error: LimitError) -> None:
        """A limit forbids the next attempt. What was asked before it, or is refused for its cost, has a receipt."""
        if not self._attempts and error.status == LimitError.status:
            self._gateway.live.discard(self)
            if self._hold is not None:
                self._hold.leave(answered=False)
            self.refuse(error)
            return
        self._note = error.message
        kept = None if self._gateway.receipts == "off" else self.id
        head = lines(JSON + retry_after(error.retry_after), kept, None, {})
        self._out = (error.status, head, chat.error_body(error))
        self._end("failed", error.status, error.code)

    def _end(self, state: ReceiptState, status: int, error: str | None, *, answer: bytes | None = None) -> None:
        self._over = True
        self._receipt = self._make_receipt(state, status, error, self._attempts, answer)
        if self._hold is not None:
            self._hold.leave(answered=state == "answered")
        if state == "cancelled":
            self._gateway.live.discard(self)
            self._gateway.metrics.note(self._receipt)
            self._gateway.record(self._receipt, None)
            self._ask_beside()
        else:
            self._gateway.record(self._receipt, self._recorded)

    def _recorded(self, error: LedgerError | None) -> None:
        """The receipt is durable (or could not be made so): let the end of the answer go out."""
        self._gateway.live.discard(self)
        if self._gateway.detailed:
            tell_request(self._receipt, len(self._request.body))
        status, headers, body = self._out
        if error is not None:
            status, headers, body = error.status, JSON, chat.error_body(error)
        else:
            self._gateway.metrics.note(self._receipt)
            self._ask_beside()
        if self._early is not None and error is None:
            self._send_early()
        if self._flows:
            failed = error is not None or body is not DONE
            self.sink.close(chat.error_event(error) if error is not None else body, clean=not failed)
        else:
            self.sink.respond(status, headers, body)

    def _ask_beside(self) -> None:
        """Have the other routes of a check asked, once its own receipt is on its way or there."""
        checking = self._gateway.checking
        if checking is not None and self._plan.coin is not None:
            checking.ask(self._request, self._plan, self._receipt)

    # -- records -----------------------------------------------------------------------------------------------

    def _add(self, attempt: Attempt) -> None:
        """Keep the record of an attempt that is over; what it used takes the place of what was held for it."""
        self._attempts.append(attempt)
        if self._hold is not None:
            usage, cost = attempt.usage, attempt.cost_picodollars
            tokens = usage.input_tokens + usage.output_tokens if usage is not None else None if cost is None else 0
            self._hold.settle(cost, tokens, self._gateway.clock.monotonic())

    def _answered(self, trial: Trial, usage: Usage | None) -> Attempt:
        attempt = self._record(trial, None, usage, billed=True)
        self._gateway.health.answered(trial.target.key, attempt.first_byte_s or 0.0)
        return attempt

    def _record(self, trial: Trial, failure: str | None, usage: Usage | None, *, billed: bool) -> Attempt:
        return trial.record(self._began, self._gateway.clock.monotonic(), failure, usage, billed=billed)

    def _make_receipt(
        self, state: ReceiptState, status: int, error: str | None, attempts: Sequence[Attempt], answer: bytes | None
    ) -> Receipt:
        duration = self._gateway.clock.monotonic() - self._began
        heard = None if self._trial is None else self._trial.first_byte
        first_byte = None if heard is None else heard - self._began
        ending = Ending(state, status, duration, error, first_byte, answer)
        salt = os.urandom(16) if self._plan.capture == "hash" else b""
        return finish(self.id, self._created, self._request, self._plan, attempts, ending, self._asked(), salt)

    def _asked(self) -> Asked:
        caller, hold = self._caller, self._hold
        if caller is None and hold is None:
            return Asked(note=self._note)
        note = self._note or (hold.note if hold is not None else None)
        key, team = (None, None) if caller is None else (caller.name, caller.team)
        return Asked(key, team, hold.reserved if hold is not None else None, note)

    def _headers(self, kind: bytes) -> bytes:
        kept = None if self._gateway.receipts == "off" else self.id
        trial = self._trial
        assert trial is not None  # noqa: S101 - it was asked
        return lines(kind, kept, trial.target.route.name, trial.head)

    def refuse(self, error: UpstackError) -> None:
        """Answer a request that was never sent on; it has no receipt, as nothing was asked of any route."""
        self._over = True
        if self._gateway.detailed:
            who = None if self._caller is None else self._caller.name
            detail("refused", status=error.status, code=error.code, key=who)
        wait = (
            error.retry_after if isinstance(error, SupplyError | LimitError) else 1.0 if error.status == 503 else None
        )
        self.sink.respond(error.status, JSON + retry_after(wait), chat.error_body(error))


def _streamed(trial: Trial | None) -> bytes | None:
    """What a stream has said, as one completion."""
    return None if trial is None or trial.stream is None else trial.stream.answer()
