"""What a judge is asked about a check once all routes have answered: which of two answers is better, both ways round.

It sees the request and the answers, and not whose they are. A coin of its own decides which disagreements a human sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from upstack.application.gateway.dialects import chat
from upstack.application.gateway.exchange import Exchange
from upstack.core.completion import content_of
from upstack.core.errors import UpstackError
from upstack.core.telemetry import fault
from upstack.core.traffic import text_of
from upstack.core.types import Plan, Receipt, Request, Terms
from upstack.inference.graders.judge import model_of, question
from upstack.inference.graders.making import make_grader
from upstack.inference.graders.tools import ToolWise
from upstack.inference.router import shadow_plan

if TYPE_CHECKING:
    from upstack.application.gateway.gateway import Gateway


class Nobody:
    """Takes an answer that no caller waits for; `ended` is told when its receipt is there."""

    paused = False

    def __init__(self, ended: Callable[[], None] = lambda: None) -> None:
        self._ended = ended

    def respond(self, status: int, headers: bytes, body: bytes) -> None:  # noqa: ARG002 - the receipt has it
        """Take a whole answer."""
        self._ended()

    def open(self, headers: bytes, data: bytes) -> None:
        """The receipt will have it."""

    def write(self, data: bytes) -> None:
        """The receipt will have it."""

    def close(self, data: bytes, *, clean: bool) -> None:  # noqa: ARG002 - the receipt has it
        """The receipt has it."""
        self._ended()


class Hearing:
    """One check whose routes are being asked, and whose disagreements are then judged."""

    def __init__(self, gateway: Gateway, request: Request, plan: Plan, check: Receipt, terms: Terms) -> None:
        self._gateway, self._request, self._plan, self._check, self._terms = gateway, request, plan, check, terms
        self._said: dict[str, str] = {}
        self._waits = 1  # for all to be asked

    def add(self, route: str, answer: bytes | None) -> None:
        """Take in what is known already."""
        if answer is not None:
            self._said[route] = content_of(answer)

    def ask(self, plan: Plan) -> Exchange:
        """Ask a route."""
        self._waits += 1
        exchange: Exchange
        exchange = Exchange(self._gateway, Nobody(lambda: self._heard(exchange)))
        exchange.check(self._request, plan)
        return exchange

    def end(self) -> None:
        """One that was waited for is there, or all were asked: once nothing is waited for, judge."""
        self._waits -= 1
        if not self._waits:
            self._judge()

    def _heard(self, exchange: Exchange) -> None:
        receipt = exchange.receipt
        if receipt.state == "answered" and receipt.route is not None:
            self.add(receipt.route, receipt.answer)
        self.end()

    def _judge(self) -> None:
        terms, gateway = self._terms, self._gateway
        reference = self._said.get(terms.reference[0])
        judge = gateway.state.routes.get(terms.judge or "")
        if reference is None or judge is None:
            return
        try:
            grader = ToolWise(make_grader(terms.grader, terms.fields))
            messages = msgspec.json.decode(self._request.fields["messages"])
            asked = text_of(messages if isinstance(messages, list) else ())
            differ = [arm for arm, _ in terms.arms if arm in self._said and not grader.same(self._said[arm], reference)]
        except UpstackError as error:
            fault("answers could not be compared; the judge is not asked", error)
            return
        coin = terms.label_rate if gateway.rng.random() < terms.label_rate else None
        for arm in differ:
            for first in (True, False):
                pair = (self._said[arm], reference) if first else (reference, self._said[arm])
                body: Mapping[str, Any] = {"model": model_of(arm, first=first), "messages": question(asked, *pair)}
                request = chat.read_request(msgspec.json.encode(body), {})
                plan = shadow_plan(self._plan, judge, gateway.state, self._check.id)
                plan = replace(plan, strategy="judge", why=f"judges {arm}, for {self._check.id}", coin=coin)
                Exchange(gateway, Nobody()).check(replace(request, subject=self._request.subject), plan)
