"""What is asked beside answers, for evidence: the other routes of a check. No answer waits for it or is changed by it.

Whether a request becomes a check is decided by a coin before its plan runs. Where there is no room, in the budget or in
flight, no coin is tossed: that depends on what was before, never on the request itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from upstack.application.gateway.exchange import Exchange
from upstack.application.gateway.judging import Hearing, Nobody
from upstack.core.telemetry import log
from upstack.core.types import Plan, Receipt, Request, student_of
from upstack.inference.hints import Hints
from upstack.inference.router import shadow_plan, shadow_task

if TYPE_CHECKING:
    from upstack.application.gateway.gateway import Gateway

_PRICES_S = 3.0  # after the start, until when the price list may not have been read
_RAISED = 10  # times as often as else the coin falls while answers look different
AT_ONCE = 64  # requests that are being asked beside answers; each holds its body
_NOBODY = Nobody()


class Shadows:
    """Tosses the coins of one gateway, and has checks asked."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._asked: list[Exchange] = []
        self._began = gateway.clock.monotonic()
        self._told: set[str | None] = set()  # tasks of which it was said that nothing is a check
        self._hints: dict[str, tuple[str, dict[str, Hints]]] = {}  # of each task: its certificate, and by route

    def toss(self, plan: Plan) -> Plan:
        """Toss the coin of a request; where it falls, its plan says so."""
        gateway = self._gateway
        if plan.ceiling is None:
            self._tell_unpriced(plan)
            return plan
        _, hints = self._hints.get(plan.task or "", ("", {}))
        rate = min(1.0, _RAISED * plan.shadow_rate) if any(each.raised for each in hints.values()) else plan.shadow_rate
        if gateway.rng.random() >= rate or not self._has_room(plan):
            return plan
        return replace(plan, coin=rate)

    def see(self, plan: Plan, receipt: Receipt) -> None:
        """Look at what an answer of a certified plan shows for nothing; where that moves, the coin falls more often."""
        task = plan.task or ""
        proved = self._gateway.state.proved.get(task)
        if proved is None or proved.certificate is None or receipt.state != "answered":
            return
        said = next((each for each in reversed(receipt.attempts) if each.route == receipt.route), None)
        if said is None or said.usage is None or said.route not in dict(proved.arms):
            return
        if self._hints.get(task, ("",))[0] != proved.certificate:
            self._hints[task] = (proved.certificate, {})
        hints = self._hints[task][1].setdefault(said.route, Hints())
        if hints.see(said.usage.output_tokens, said.duration_s):
            log(f"task {task}: answers of {said.route} look different lately, and more requests become checks")

    def ask(self, request: Request, plan: Plan, receipt: Receipt, heard: Mapping[str, bytes]) -> None:
        """Ask all routes of the plan but those whose whole answers are there: the receipt's, and what was `heard`.

        What was heard, and is not the receipt's, is kept in a receipt of its own, which costs nothing.
        """
        gateway = self._gateway
        task = gateway.state.tasks.get(plan.task or "")
        terms = None if task is None else task.terms
        hearing = None if terms is None or terms.judge is None else Hearing(gateway, request, plan, receipt, terms)
        answered = receipt.route if receipt.state == "answered" else None
        for route in dict.fromkeys(target.route.name for target in (*plan.arms, *plan.targets)):
            if student_of(route) is not None:
                continue  # what it says is worked out where it is needed
            answer = receipt.answer if route == answered else heard.get(route)
            if hearing is not None and answer is not None:
                hearing.add(route, answer)
            if route in heard and route != answered:
                gateway.record(_of_heard(receipt, route, heard[route], gateway.new_id(gateway.clock.time())), None)
            elif route != answered and route in gateway.state.routes:
                beside = shadow_plan(plan, gateway.state.routes[route], gateway.state, receipt.id)
                if hearing is not None:
                    self._asked.append(hearing.ask(beside))
                else:
                    exchange = Exchange(gateway, _NOBODY)
                    exchange.check(request, beside)
                    self._asked.append(exchange)
        if hearing is not None:
            hearing.end()

    def _tell_unpriced(self, plan: Plan) -> None:
        """Say once why nothing is a check, when the price list has had its time to be read."""
        if plan.task not in self._told and self._gateway.clock.monotonic() > self._began + _PRICES_S:
            self._told.add(plan.task)
            unknown = ", ".join(dict.fromkeys(each.route.name for each in plan.targets if each.route.price is None))
            log(f"task {plan.task}: nothing is a check, as the price of {unknown} is unknown; give it in [prices]")

    def _has_room(self, plan: Plan) -> bool:
        live = self._gateway.live
        self._asked = [exchange for exchange in self._asked if exchange in live]
        return len(self._asked) < AT_ONCE and self._gateway.meters.has_room(shadow_task(plan.task or ""))


def _of_heard(check: Receipt, route: str, answer: bytes, own_id: str) -> Receipt:
    """What a route said for the decision on a check; asking it is among the check's own attempts."""
    return replace(
        check,
        id=own_id,
        task=shadow_task(check.task or ""),
        strategy="shadow",
        why=f"said for the decision on {check.id}, which is a check",
        route=route,
        usage=None,
        cost_picodollars=0,
        attempts=(),
        request=None,
        answer=answer,
        reserved_picodollars=None,
        coin=None,
        check_of=check.id,
        state="answered",
        status=200,
        error=None,
        key=None,
        team=None,
        episode=None,
    )
