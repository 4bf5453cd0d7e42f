"""The attempts of one request: made one after the other, or for a decision, until one answers.

    begin -> decide -> attempt -> (fail over | retry)* -> answer -> receipt durable -> the answer's end goes out

The decisions are elsewhere and pure (`router`, `cascade`, `receipts`, the dialect); this file only carries them out.
It knows neither uvicorn nor ASGI: whoever has a caller gives a `Sink`.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from upstack.application.gateway.auth import may_ask
from upstack.application.gateway.dialects import chat
from upstack.application.gateway.dialects.chat_stream import DONE, ChatStream, choices_wanted
from upstack.application.gateway.exchange.deliberation import Deliberation
from upstack.application.gateway.exchange.ends import Ends
from upstack.application.gateway.exchange.hearing import Hearing
from upstack.application.gateway.exchange.trial import Trial
from upstack.application.gateway.lines import EVENTS, JSON, lines, retry_after
from upstack.core.errors import Failure, LedgerError, LimitError, SupplyError, UpstackError
from upstack.core.telemetry import fault
from upstack.core.types import Capture, Plan, Request, Usage
from upstack.inference.cascade import STALE_TRIES, Tried, next_step, summary
from upstack.inference.receipts import surely_free
from upstack.inference.router import decide
from upstack.inference.strategies.base import Ask, Serve, Take
from upstack.inference.strategies.policy import Policy

_STREAM = b"text/event-stream"
LEASE_WAIT = 0.02  # seconds between looks at whether a share of a budget has come
LEASE_WAITS = 100
KEEP_ALIVE = 5.0  # seconds between comments while a stream is held back
COMMENT = b": an answer is being chosen\n\n"
LINGER = 1.0  # seconds a provider may take to end its body after its stream said [DONE]

_LEAST: tuple[Capture, ...] = ("none", "hash", "full")
_CALLERS = frozenset({Failure.CALLER, Failure.UNFIT})


class Exchange(Ends):
    """A request in flight. Implements `Receiver`; the sink calls `gone`, `pause` and `resume`."""

    __slots__ = ()

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
        if isinstance(plan.policy, Policy):
            self._weigh(plan.policy)
        else:
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
        """Ask one of the plan's targets; one of its arms by ~index."""
        gateway = self._gateway
        self._timer = None
        now = gateway.clock.monotonic()
        if self._hold is not None:
            refusal = self._hold.reserve(now)
            if refusal is not None:
                self._refused(refusal, index)
                return
        target = self._plan.targets[index] if index >= 0 else self._plan.arms[~index]
        self._trial = trial = Trial(target, index, now)
        if gateway.health.resting:
            gateway.health.started(target.key, now)
        if self._request.stream or self._plan.coin is not None:
            self._announce(trial)
        receiver = Hearing(self, trial) if self._weighs else self
        self._call = gateway.backends[target.route.provider.backend].send(target, self._request, receiver)
        if self.sink.paused:
            self._call.pause()

    def on_head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        """Receive the provider's status and headers."""
        trial = self._trial
        assert trial is not None  # noqa: S101 - it was asked
        trial.status, trial.head = status, headers
        request = self._request
        if status == 200 and request.stream and headers.get(b"content-type", b"").lower().startswith(_STREAM):
            kept = (self._plan.capture != "none" and self._gateway.receipts != "off") or self._weighs
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
            if self._weighs and self._trial is not None:
                self._trial.kept.append(data)
                if stream.committed and self._call is not None:
                    self._call.unheard = False
            elif self._flows:
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
            self._flow(data)
            return
        self._early = [data]
        if self._call is not None:
            self._call.pause()

    def _stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- decisions -----------------------------------------------------------------------------------------------

    def _weigh(self, policy: Policy) -> None:
        """Have a policy decide what is asked and what goes out."""
        task = self._gateway.state.tasks.get(self._plan.task or "")
        if task is None or task.terms is None:  # it has just gone
            self._attempt(0)
            return
        self._deliberation, self._weighs = Deliberation(policy, task.terms, self._request), True
        if self._request.stream:
            self._greeter = self._gateway.loop.call_later(KEEP_ALIVE, self._greet)
        self._decide()

    def _hear(self, trial: Trial, answer: bytes | None, usage: Usage | None) -> None:
        deliberation = self._deliberation
        assert deliberation is not None  # noqa: S101 - it weighs
        if answer is None:  # too large to be looked at
            self._decided(deliberation.escalate())
            return
        deliberation.hear(trial, answer, 0 if usage is None else usage.output_tokens)
        self._decide()

    def _decide(self) -> None:
        """Take the next step, on another thread where it takes long."""
        deliberation = self._deliberation
        assert deliberation is not None  # noqa: S101 - it weighs
        if deliberation.is_quick:
            self._decided(_step(deliberation))
        else:
            loop = self._gateway.loop
            loop.run_in_executor(None, _step, deliberation).add_done_callback(lambda each: self._decided(each.result()))

    def _decided(self, step: Ask | Take | Serve) -> None:
        if self._over:
            return
        if isinstance(step, Serve) and self._deliberation is not None:
            self._serve(*self._deliberation.heard[step.route])
            return
        arms = [at for at, target in enumerate(self._plan.arms) if target.route.name == step.route]
        if isinstance(step, Ask):
            self._attempt(~self._gateway.rng.choice(arms))
            return
        self._weighs = False
        self._waits = 0
        if arms:
            taken = tuple(self._plan.arms[at] for at in arms)
            self._plan = replace(self._plan, targets=(*taken, *self._plan.targets), arms=())
        self._attempt(0)

    def _serve(self, trial: Trial, answer: bytes) -> None:
        """Let an answer out that was held back."""
        self._trial, self._weighs = trial, False
        if trial.stream is None:
            self._out = (200, self._headers(JSON), answer)
        else:
            trial.first_byte = self._gateway.clock.monotonic()  # of what the caller sees
            self._open(b"".join(trial.kept))
            self._out = (200, b"", DONE)
        self._end("answered", 200, None, answer=answer)

    def _greet(self) -> None:
        """Keep the connection of a stream alive that nothing may go out on yet."""
        if self._flows or self._over:
            return
        if self._known and not self._greeted:
            self._greeted = True
            kept = None if self._gateway.receipts == "off" else self.id
            self.sink.open(lines(EVENTS, kept, None, {}), COMMENT)
        elif self._greeted:
            self.sink.write(COMMENT)
        self._greeter = self._gateway.loop.call_later(KEEP_ALIVE, self._greet)

    # -- ends --------------------------------------------------------------------------------------------------

    def _finish_whole(self, trial: Trial, body: bytes) -> None:
        try:
            usage = chat.read_answer(body)
        except SupplyError as error:
            self._fail(error)
            return
        self._add(self._answered(trial, usage))
        if self._weighs:
            self._hear(trial, body, usage)
            return
        self._out = (200, self._headers(JSON), body)
        self._end("answered", 200, None, answer=body)

    def _finish_stream(self, stream: ChatStream) -> None:
        held = stream.take_held()  # an answer may rightly have no content at all
        trial = self._trial
        assert trial is not None  # noqa: S101 - the stream is its
        self._add(self._answered(trial, stream.usage))
        if not self._opened and not self._weighs:
            self._open(held)
        call, self._call = self._call, None
        if call is not None and stream.done:
            call.resume()
            self._gateway.loop.call_later(LINGER, call.cancel)
        if self._weighs:
            trial.kept.append(held)
            self._hear(trial, stream.answer(), stream.usage)
            return
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
        if self._weighs and self._trial is not None:
            if error.failure is Failure.STALE and self._waits < STALE_TRIES:
                self._waits += 1
                self._attempt(self._trial.index)
            elif self._deliberation is not None:
                self._decided(self._deliberation.escalate())
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
        if not self._weighs:
            self._tried.append(Tried(trial.index, error))

    def _fail_for_good(self, error: SupplyError) -> None:
        trial = self._trial
        if trial is not None and self._opened:
            message = f"{trial.target.route.name}: {error.message}; the answer is incomplete"
            self._out = (200, b"", chat.error_event(SupplyError(error.failure, message)))
            self._end("truncated", 200, error.code, answer=_streamed(trial))
            return
        if trial is not None and error.failure in _CALLERS and not (self._weighs or self._greeted):
            status = trial.status or 400
            self._out = (status, self._headers(JSON), trial.whole())  # the provider's own words about the request
            self._end("failed", status, error.code)
            return
        shown = summary(self._plan, self._tried) if self._tried else error
        if self._greeted:
            self._out = (200, b"", chat.error_event(shown))
        else:
            self._out = (shown.status, self._headers(JSON + retry_after(shown.retry_after)), chat.error_body(shown))
        self._end("failed", self._out[0], shown.code)

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


def _streamed(trial: Trial | None) -> bytes | None:
    """What a stream has said, as one completion."""
    return None if trial is None or trial.stream is None else trial.stream.answer()


def _step(deliberation: Deliberation) -> Ask | Take | Serve:
    """What is next; where the grader fails, the reference."""
    try:
        return deliberation.step()
    except Exception as error:  # noqa: BLE001 - a grader of the user's, and a caller who waits
        fault("an answer could not be judged, and the reference is asked", error)
        return deliberation.escalate()
