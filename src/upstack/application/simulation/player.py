"""The closed loop in accelerated time: recorded requests arrive one by one, in an order shuffled by a seed.

All of it goes through a ledger, as the requests of a gateway do, and the loop that looks at it is the same. What came
of it is read from the ledger at the end; one that was killed goes on where its ledger ends.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from upstack.application.data.importers.exchange import completion, said_in_words
from upstack.application.loop import Loop
from upstack.application.proving.prover import Picture, policy_of
from upstack.application.proving.pupils import Pupils, answer_of
from upstack.application.simulation.stream import VERSION, Stream
from upstack.core.errors import LedgerError
from upstack.core.store.batches import batch_of
from upstack.core.store.ids import id_of, outcome_id
from upstack.core.store.outcomes import told_by
from upstack.core.store.reading import known_ids
from upstack.core.store.rights import keep_rights
from upstack.core.store.writer import open_ledger
from upstack.core.traffic import RecordedAnswer, TrafficRow
from upstack.core.types import Attempt, Outcome, Receipt, Usage, student_of
from upstack.foundation.students.student import read_by_student
from upstack.inference.backtest.board import as_answer
from upstack.inference.cost import cost
from upstack.inference.learning.signs import Answer
from upstack.inference.router import shadow_task
from upstack.inference.strategies.base import Ask, Take
from upstack.inference.strategies.policy import Policy

_LOOK = 25  # requests between turns of the loop
_SHARE_BEFORE = 0.2  # of the labels, that may be spent before there are plans to prove
_SHARE_AFTER = 0.2  # of the labels, that are kept to watch the plan in service
LABELLED = "reviewer:simulated"  # who answers what a person is asked


class Simulation:
    """Plays a stream against the loop of a ledger that nobody else writes."""

    def __init__(self, place: str, stream: Stream, loop: Loop, pupils: Pupils) -> None:
        self._place, self._stream, self._loop, self._pupils = place, stream, loop, pupils
        self._policy: Policy | None = None
        self._picture: Picture | None = None
        self._told: set[str] = set()
        self._rows: dict[str, TrafficRow] = {}

    def run(self, progress: Callable[[int], None] = lambda _: None) -> None:
        """Play what has not been played."""
        ledger = open_ledger(self._place, 1.0)
        try:
            self._write(ledger, *self._beforehand())
            self._keep_rights()
            done = self._resume()
            for first in range(done, len(self._stream.rows), _LOOK):
                self._turn(ledger, first)
                page = range(first, min(first + _LOOK, len(self._stream.rows)))
                self._write(ledger, [receipt for at in page for receipt in self._play(at)], [])
                progress(page[-1] + 1)
            self._turn(ledger, len(self._stream.rows))
        finally:
            ledger.close()

    def serves(self) -> str | None:
        """What answers now, in words; None: the reference."""
        return None if self._policy is None else self._policy.words()

    def why(self) -> str | None:
        """Why nothing is certified."""
        return None if self._picture is None else self._picture.why

    # --- One request ---------------------------------------------------------------------------------------------

    def _play(self, at: int) -> Iterator[Receipt]:
        """Answer a request: its receipt, and that of the reference where it was asked beside."""
        stream, row = self._stream, self._stream.rows[at]
        rate = 0.0 if stream.threshold is not None else 1.0 if self._is_eager() else stream.shadow_rate
        fell = random.Random(f"{stream.seed}:{at}").random() < rate
        said: dict[str, RecordedAnswer] = {}
        route = self._decide(row, said)
        if route == stream.reference:
            said[route] = row.answers[route]
        receipt = self._receipt(at, row, list(said), route, said)
        if fell:
            receipt = replace(receipt, coin=rate)
        yield receipt
        if fell and route != stream.reference:
            said = {stream.reference: row.answers[stream.reference]}
            beside = self._receipt(at, row, [stream.reference], stream.reference, said)
            digest = hashlib.sha256(receipt.id.encode()).digest()
            yield replace(
                beside,
                id=id_of(receipt.created_at, digest),
                task=shadow_task(stream.task),
                strategy="shadow",
                check_of=receipt.id,
            )

    def _is_eager(self) -> bool:
        """Whether all requests are checks: nothing is proved, or something much cheaper is in sight."""
        return self._policy is None or (self._picture is not None and self._picture.eager)

    def _decide(self, row: TrafficRow, said: dict[str, RecordedAnswer]) -> str:
        """Run the policy in force: which route answers."""
        policy = self._policy
        if policy is None:
            return self._stream.reference
        seen = _Seen(read_by_student(row.messages), said)
        step = policy.step(self._stream.reference, seen)
        while isinstance(step, Ask):
            said[step.route] = self._ask(step.route, row)
            step = policy.step(self._stream.reference, seen)
        if isinstance(step, Take) and step.route != self._stream.reference:
            said[step.route] = self._ask(step.route, row)
        return step.route

    def _ask(self, route: str, row: TrafficRow) -> RecordedAnswer:
        student = student_of(route)
        if student is None:
            return row.answers[route]
        said = self._pupils.student(student).say(read_by_student(row.messages))
        return answer_of(said, self._pupils.learnt(student).seconds * self._stream.usd_per_second)

    def _receipt(
        self, at: int, row: TrafficRow, asked: Sequence[str], route: str, said: Mapping[str, RecordedAnswer]
    ) -> Receipt:
        created = self._stream.time(at)
        attempts = tuple(self._attempt(name, said[name]) for name in asked)
        answer = said[route]
        model = route.partition("/")[2]
        usage = Usage(answer.input_tokens, answer.output_tokens)
        return Receipt(
            id=self._stream.id(at),
            created_at=created,
            state="answered",
            model=f"task/{self._stream.task}",
            task=self._stream.task,
            strategy="reference" if self._policy is None else self._policy.kind,  # type: ignore[arg-type]
            plan=", ".join(asked),
            why="simulated: " + ("nothing is proved" if self._policy is None else self._policy.words()),
            route=route,
            stream=False,
            status=200,
            error=None,
            first_byte_s=None,
            duration_s=answer.latency_s or 0.0,
            usage=usage,
            cost_picodollars=sum(each.cost_picodollars or 0 for each in attempts),
            attempts=attempts,
            capture="full",
            request=msgspec.json.encode({"model": f"task/{self._stream.task}", "messages": row.messages}),
            answer=completion(model, answer.content, answer.finish_reason, usage),
            subject=row.subject,
        )

    def _attempt(self, route: str, answer: RecordedAnswer) -> Attempt:
        provider, _, model = route.partition("/")
        usage = Usage(answer.input_tokens, answer.output_tokens)
        if student_of(route) is not None:
            paid: int | None = round(getattr(answer, "cost_usd", 0.0) * 1e12)
        else:
            paid = cost(usage, self._stream.price, answer.latency_s or 0.0)
        version = student_of(route) or VERSION
        return Attempt(
            route, provider, model, version, 0, 200, None, 0.0, None, answer.latency_s or 0.0, usage, None, paid
        )

    # --- Between requests ----------------------------------------------------------------------------------------

    def _turn(self, ledger: Any, at: int) -> None:
        """Let the loop look, take over what serves now, and answer what it wants to be labelled."""
        now = self._stream.time(at)
        while True:  # what was labelled may prove something, and ask for more
            picture = self._loop.turn(now)
            self._serve(picture)
            wanted = self._wanted(picture)
            if not wanted:
                return
            self._write(ledger, [], [self._label(each, now) for each in wanted])

    def _serve(self, picture: Picture) -> None:
        self._picture = picture
        if self._stream.threshold is not None:
            self._policy = self._loop.unproved(self._stream.threshold)
        else:
            self._policy = None if picture.certificate is None else policy_of(picture.certificate)

    def _wanted(self, picture: Picture) -> list[str]:
        """Which rows a person is asked about now, as far as the labels go."""
        left = self._stream.labels - len(self._told)
        most = self._stream.labels
        if self._stream.threshold is not None:
            wanted: Sequence[str] = self._loop.disputed()
        elif picture.submission is None:
            wanted, left = picture.unlabelled, int(most * _SHARE_BEFORE) - len(self._told)
        else:
            watching = [each for each in picture.watching if each not in self._told][:left]
            left -= int(most * _SHARE_AFTER)
            return watching or self._new(picture.needed)[: max(0, left)]
        return self._new(wanted)[: max(0, left)]

    def _new(self, wanted: Sequence[str]) -> list[str]:
        return [each for each in wanted if each not in self._told and self._truth(each) is not None]

    def _truth(self, receipt: str) -> str | None:
        row = self._by_id().get(receipt)
        if row is None or row.truth is None:
            return None
        return row.truth if isinstance(row.truth, str) else msgspec.json.encode(row.truth).decode()

    def _label(self, receipt: str, now: float) -> Outcome:
        self._told.add(receipt)
        truth = self._truth(receipt)
        assert truth is not None  # noqa: S101 - it was looked at
        return _told(receipt, now, truth, LABELLED, None)

    def _by_id(self) -> dict[str, TrafficRow]:
        if not self._rows:
            self._rows = {self._stream.id(at): row for at, row in enumerate(self._stream.rows)}
        return self._rows

    def _beforehand(self) -> tuple[list[Receipt], list[Outcome]]:
        """The rows known beforehand: requests that nobody was asked, with what is right."""
        receipts, outcomes = [], []
        for at, row in enumerate(self._stream.start):
            created = self._stream.time(at - len(self._stream.start))
            digest = hashlib.sha256(f"start:{row.id}".encode()).digest()
            receipt = Receipt(
                id=id_of(created, digest),
                created_at=created,
                state="answered",
                model=self._stream.task,
                task=self._stream.task,
                strategy="imported",
                plan="",
                why="known beforehand",
                route=None,
                stream=False,
                status=200,
                error=None,
                first_byte_s=None,
                duration_s=0.0,
                usage=None,
                cost_picodollars=0,
                attempts=(),
                capture="full",
                request=msgspec.json.encode({"model": self._stream.task, "messages": row.messages}),
                subject=row.subject,
            )
            receipts.append(receipt)
            truth = row.truth if isinstance(row.truth, str) else msgspec.json.encode(row.truth).decode()
            outcomes.append(_told(receipt.id, created, truth, "start", row.subject))
        return receipts, outcomes

    def _keep_rights(self) -> None:
        """What the file says of rights, under the ids that the rows have or will have."""
        stream = self._stream
        known = {stream.id(at): row for at, row in enumerate(stream.rows)}
        known |= {receipt.id: row for receipt, row in zip(self._beforehand()[0], stream.start, strict=True)}
        said = {own_id: said_in_words(row.rights) for own_id, row in known.items()}
        keep_rights(self._place, {own_id: words for own_id, words in said.items() if words is not None})

    def _resume(self) -> int:
        """How many requests the ledger has already; pages are written whole, so that none is missing in between."""
        self._told = {receipt for receipt, _ in told_by(self._place, LABELLED)}
        ids = [self._stream.id(at) for at in range(len(self._stream.rows))]
        done = 0
        while done < len(ids) and ids[done] in known_ids(self._place, ids[done : done + 1]):
            done += 1
        return done

    def _write(self, ledger: Any, receipts: Sequence[Receipt], outcomes: Sequence[Outcome]) -> None:
        if receipts or outcomes:
            failures = ledger.record(batch_of(receipts, outcomes))
            if failures:
                raise LedgerError(f"the ledger {self._place} did not take a row: {failures[0][1]}")


class _Seen:
    """One request, and the answers there are by now."""

    def __init__(self, prompt: str, said: Mapping[str, RecordedAnswer]) -> None:
        self.prompt, self._said = prompt, said

    def answer(self, route: str) -> Answer | None:
        """What a route said, None before it was asked."""
        return as_answer(self._said[route]) if route in self._said else None

    def same(self, one: str, other: str) -> bool:
        """Whether two answers are the same text."""
        return self._said[one].content == self._said[other].content


def _told(receipt: str, at: float, truth: str, source: str, subject: str | None) -> Outcome:
    own_id = outcome_id(receipt)
    return Outcome(
        id=own_id,
        created_at=at,
        observed_at=at,
        receipt=receipt,
        name="label",
        source=source,
        idempotency_key=own_id,
        demonstration=truth.encode(),
        subject=subject,
    )
