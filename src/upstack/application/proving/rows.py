"""From checks in the ledger to rows of a board: what each route said, as far as it is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from upstack.core.completion import content_of, finish_reason_of, logprobs_of
from upstack.core.errors import EvidenceError, Failure
from upstack.core.store.checks import Check
from upstack.core.traffic import RecordedAnswer, TrafficRow
from upstack.core.types import Attempt, Receipt, Terms, student_of
from upstack.foundation.students.student import read_by_student
from upstack.inference.graders.judge import verdict

JUDGE = "judge"
OUTCOME = "outcome"  # the grader that takes what was told of each answer
_PER_USD = 1e12


class CheckedAnswer(RecordedAnswer, frozen=True):
    """What a route said to a check. Where it failed, what stood in its place."""

    cost_usd: float = 0.0
    known: bool = True  # False: nobody knows what it would have said


class CheckedRow(TrafficRow, frozen=True):
    """A check. Its answers are named as the task's routes are."""

    waits: bool = False  # for an answer that may still come
    verdicts: Mapping[str, float] = {}  # of a judge, by route: how much worse than the reference, in -1 to 1
    coin: bool = False  # fell: a human is to judge, too

    def __post_init__(self) -> None:
        """Take any name of a route."""

    def is_known(self, route: str) -> bool:
        """Whether it is known what the route said."""
        answer = self.answers[route]
        return isinstance(answer, CheckedAnswer) and answer.known


def cost_of(_: str, answer: RecordedAnswer) -> float:
    """What an answer to a check cost, in USD."""
    return answer.cost_usd if isinstance(answer, CheckedAnswer) else 0.0


class Pupils(Protocol):
    """Who knows what students say."""

    def answer(self, student: str, row_id: str, text: str) -> CheckedAnswer:
        """What a student says to a check."""
        ...


class _Said(msgspec.Struct, frozen=True):
    """What asking one route came to."""

    content: str | None  # None: it failed
    receipt: Receipt
    refused: bool
    cost_usd: float


def to_row(check: Check, terms: Terms, now: float, patience: float, pupils: Pupils | None = None) -> CheckedRow | None:
    """Make the row of a check, in which every route of `terms` has an answer; None where it is no evidence.

    It is none where its content is gone, where a route was another version then, or where the reference refused the
    request: nobody could have answered. A route that failed has the reference's answer, as a plan would have gone on to
    it, a reference that failed what the first other said. What is missing for longer than `patience` seconds is lost.
    What students say is worked out by `pupils`.
    """
    if check.gone or check.receipt.request is None:
        return None
    versions = {name: version for name, version in (terms.reference, *terms.arms) if student_of(name) is None}
    said: dict[str, _Said] = {}
    judged = [receipt for receipt in check.beside if receipt.strategy == JUDGE]
    for receipt in (check.receipt, *(each for each in check.beside if each.strategy != JUDGE)):
        asked = receipt if receipt.attempts else replace(receipt, attempts=_asked_for(receipt.route, check.receipt))
        for each in _said(asked, alone=bool(receipt.attempts) and receipt is not check.receipt):
            name, version = each[0]
            if name in versions:
                if versions[name] != version:
                    return None
                said.setdefault(name, each[1])
    reference = said.get(terms.reference[0])
    if reference is not None and reference.refused:
        return None
    stand_in = _first_content([terms.reference[0], *(name for name, _ in terms.arms)], said)
    told = check.told if terms.grader == OUTCOME else {}
    answers: dict[str, RecordedAnswer] = {name: _answer(said.get(name), stand_in, reference, told) for name in versions}
    messages = messages_of(check.receipt.request)
    taught = [name for name, _ in terms.arms if student_of(name) is not None]
    if taught and pupils is not None:
        text = read_by_student(messages)
        answers |= {name: pupils.answer(student_of(name) or "", check.receipt.id, text) for name in taught}
    return CheckedRow(
        id=check.receipt.id,
        task=check.receipt.task or "",
        messages=messages,
        answers=answers,
        truth=None if terms.grader == OUTCOME else _truth(check.truth),
        time=check.receipt.created_at,
        verdicts=_verdicts(judged),
        coin=any(receipt.coin is not None for receipt in judged),
        waits=len(said) < len(versions) and now < check.receipt.created_at + patience,
    )


def _verdicts(receipts: Sequence[Receipt]) -> dict[str, float]:
    """What a judge said of each route, where it was asked both ways round and answered."""
    by_arm: dict[str, list[tuple[str, str]]] = {}
    for receipt in receipts:
        if receipt.state == "answered":
            by_arm.setdefault(receipt.model.split("/", 2)[-1], []).append((receipt.model, content_of(receipt.answer)))
    return dict(found for found in map(verdict, by_arm.values()) if found is not None)


def _asked_for(route: str | None, check: Receipt) -> tuple[Attempt, ...]:
    """How a check asked a route for its decision."""
    return tuple(each for each in check.attempts if each.route == route and each.failure is None)


def _said(receipt: Receipt, *, alone: bool) -> list[tuple[tuple[str, str], _Said]]:
    """What a receipt says of the routes that were asked: of the one that answered, and of those that failed.

    `alone`: one route was asked and the whole cost is its own.
    """
    found = []
    for attempt in receipt.attempts:
        answered = receipt.state == "answered" and attempt.failure is None and attempt.route == receipt.route
        if answered:
            content = content_of(receipt.answer)
        elif attempt.failure is None or attempt.failure == "cancelled":
            continue
        else:
            content = None
        paid = receipt.cost_picodollars if alone else attempt.cost_picodollars
        if paid is None:
            raise EvidenceError(f'What an answer of "{attempt.route}" costs is not known: give its price in [prices]')
        refused = content is None and attempt.failure == Failure.CALLER.value  # no other route is asked then
        found.append(((attempt.route, attempt.version), _Said(content, receipt, refused, paid / _PER_USD)))
    return list(reversed(found))  # of a route that failed and then answered, the answer counts


def _first_content(names: Sequence[str], said: dict[str, _Said]) -> _Said | None:
    return next((said[name] for name in names if name in said and said[name].content is not None), None)


def _answer(
    said: _Said | None, stand_in: _Said | None, reference: _Said | None, told: Mapping[str, float]
) -> CheckedAnswer:
    if said is None:
        cost = reference.cost_usd if reference is not None else 0.0
        return CheckedAnswer("", 0, 0, loss=1.0, cost_usd=cost, known=False)
    if said.content is None and said.refused:
        return CheckedAnswer("", 0, 0, loss=1.0, cost_usd=said.cost_usd)
    spoken = said if said.content is not None else stand_in
    if spoken is None:  # all failed: whatever was asked first, nobody answered
        return CheckedAnswer("", 0, 0, loss=1.0, cost_usd=said.cost_usd)
    usage = spoken.receipt.usage
    return CheckedAnswer(
        spoken.content,
        usage.input_tokens if usage is not None else 0,
        usage.output_tokens if usage is not None else 0,
        loss=1.0 - told[spoken.receipt.id] if spoken.receipt.id in told else None,
        cost_usd=said.cost_usd + (0.0 if spoken is said else spoken.cost_usd),
        finish_reason=finish_reason_of(spoken.receipt.answer),
        logprobs=logprobs_of(spoken.receipt.answer),
    )


def messages_of(request: bytes) -> tuple[dict[str, Any], ...]:
    """The messages of a chat completion request; none where it is no such."""
    try:
        whole = msgspec.json.decode(request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
    messages = whole.get("messages") if isinstance(whole, dict) else None
    return tuple(each for each in messages if isinstance(each, dict)) if isinstance(messages, list) else ()


def _truth(demonstration: bytes | None) -> Any:
    """A right answer as graders take it: a text, or what JSON it is."""
    if demonstration is None:
        return None
    text = demonstration.decode("utf-8", "replace")
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return msgspec.json.decode(demonstration)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return text
