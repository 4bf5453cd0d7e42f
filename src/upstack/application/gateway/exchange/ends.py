"""How a request ends: what goes out to the caller, what its receipt says, and that the one waits for the other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from upstack.application.gateway.auth import Caller
from upstack.application.gateway.dialects import chat
from upstack.application.gateway.dialects.chat_stream import DONE
from upstack.application.gateway.exchange.deliberation import Deliberation
from upstack.application.gateway.exchange.trial import Trial
from upstack.application.gateway.lines import EVENTS, JSON, lines, retry_after
from upstack.application.gateway.sink import Sink
from upstack.core.errors import LedgerError, LimitError, SupplyError, UpstackError
from upstack.core.telemetry import detail, tell_request
from upstack.core.types import Attempt, Plan, Receipt, ReceiptState, Request, Usage
from upstack.inference.cascade import Tried
from upstack.inference.receipts import Asked, Ending, finish

if TYPE_CHECKING:
    from upstack.application.gateway.gateway import Gateway
    from upstack.application.gateway.limits.meters import Hold
    from upstack.foundation.backends.base import Call


class Ends:
    """A request in flight, as far as its end is concerned."""

    __slots__ = (
        "_attempts",
        "_began",
        "_call",
        "_caller",
        "_created",
        "_deliberation",
        "_early",
        "_flows",
        "_gateway",
        "_greeted",
        "_greeter",
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
        "_weighs",
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
        self._deliberation: Deliberation | None = None
        self._weighs = False  # no answer goes out before the policy has decided on it
        self._greeted = False  # the caller of a stream has its head, and comments that keep the connection alive
        self._greeter: asyncio.TimerHandle | None = None
        self._over = False  # how it ends is decided; only the receipt is waited for

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
        self._out = (
            (200, b"", chat.error_event(error)) if self._greeted else (error.status, head, chat.error_body(error))
        )
        self._end("failed", self._out[0], error.code)

    def _end(self, state: ReceiptState, status: int, error: str | None, *, answer: bytes | None = None) -> None:
        self._over = True
        if self._greeter is not None:
            self._greeter.cancel()
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
        if self._flows or self._greeted:
            failed = error is not None or body is not DONE
            self.sink.close(chat.error_event(error) if error is not None else body, clean=not failed)
        else:
            self.sink.respond(status, headers, body)

    @property
    def receipt(self) -> Receipt:
        """Of a request that has ended."""
        return self._receipt

    def _ask_beside(self) -> None:
        """Have the other routes of a check asked, once the caller has the answer: whatever goes wrong is not theirs."""
        checking = self._gateway.checking
        if checking is None or not self._plan.shadow_rate or self._plan.check_of is not None:
            return
        self._gateway.loop.call_soon(checking.see, self._plan, self._receipt)
        if self._plan.coin is not None:
            heard = {} if self._deliberation is None else self._deliberation.heard
            said = {name: each[1] for name, each in heard.items()}
            self._gateway.loop.call_soon(checking.ask, self._request, self._plan, self._receipt, said)

    def _send_early(self) -> None:
        if self._early is not None:
            self._flow(b"".join(self._early))
            self._early = None

    def _flow(self, data: bytes) -> None:
        """Let a stream out."""
        self._flows = True
        if self._greeted:
            self.sink.write(data)
        else:
            self.sink.open(self._headers(EVENTS), data)

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
        trial.place = len(self._attempts)
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
        served = -1 if self._trial is None else self._trial.place
        ending = Ending(state, status, duration, error, first_byte, answer, served)
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
        if trial is None:  # nobody was asked yet
            return lines(kind, kept, None, {})
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
