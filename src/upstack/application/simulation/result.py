"""What came of a simulation, as its ledger tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from upstack.application.simulation.player import LABELLED
from upstack.application.simulation.stream import Stream
from upstack.core.completion import content_of
from upstack.core.store import proofs
from upstack.core.store.checks import Check, read_checks
from upstack.core.store.outcomes import told_by
from upstack.core.store.rows import to_seconds
from upstack.core.store.standings import REVOKED
from upstack.core.store.students import students_of
from upstack.core.types import Usage
from upstack.inference.cost import cost
from upstack.inference.graders.base import Grader
from upstack.inference.router import shadow_task

_POINTS = 20  # of the curve
_PER_USD = 1e12


class Point(msgspec.Struct, frozen=True):
    """What had come of it after so many requests."""

    requests: int
    reference_share: float  # calls to the reference, those beside answers too, over requests
    accuracy: float | None  # 1 less the mean loss of all served answers; None: no truth is known
    reference_accuracy: float | None  # what the reference alone would have had
    labels_used: int
    cost_usd: float
    reference_cost_usd: float
    promotions: int
    revocations: int


class Result(Point, frozen=True):
    """The last point, and the way there."""

    curve: tuple[Point, ...]
    task: str
    seed: int
    certified: bool  # plans were proved before they served
    students: int
    serves: str | None  # what answers at the end; None: the reference
    why: str | None  # nothing is certified at the end


def result_of(place: str, stream: Stream, grader: Grader, serves: str | None, why: str | None) -> Result:
    """Read what came of it."""
    count = len(stream.rows)
    tally = _Tally(place, stream, grader)
    points = [tally.point(count * step // _POINTS) for step in range(1, _POINTS + 1) if count * step // _POINTS]
    last = msgspec.structs.asdict(points[-1])
    return Result(
        **last,
        curve=tuple(points),
        task=stream.task,
        seed=stream.seed,
        certified=stream.threshold is None,
        students=len(students_of(place, stream.task)),
        serves=serves,
        why=why,
    )


class _Tally:
    """Sums over the first so many requests."""

    def __init__(self, place: str, stream: Stream, grader: Grader) -> None:
        self._stream = stream
        checks = {
            each.receipt.id: each for each in read_checks(place, stream.task, shadow_task(stream.task), every=True)
        }
        self._calls, self._paid, self._would, self._known = [0], [0], [0], [0]
        self._losses, self._reference = [0.0], [0.0]
        for at, row in enumerate(stream.rows):
            check = checks[stream.id(at)]
            answer = row.answers[stream.reference]
            truth = row.truth
            mine = theirs = 0.0
            if truth is not None:
                mine = grader.loss(content_of(check.receipt.answer), truth)
                theirs = grader.loss(answer.content or "", truth)
            _add(self._known, int(truth is not None))
            _add(self._losses, mine)
            _add(self._reference, theirs)
            _add(self._calls, _calls(check, stream.reference))
            _add(self._paid, sum(each.cost_picodollars or 0 for each in (check.receipt, *check.beside)))
            usage = Usage(answer.input_tokens, answer.output_tokens)
            _add(self._would, cost(usage, stream.price, answer.latency_s or 0.0) or 0)
        self._labels = [at for _, at in told_by(place, LABELLED)]
        issued = proofs.history(place, stream.task).certificates
        promoted = [each.issued_at for each in issued]
        if stream.threshold is not None:
            promoted = [each.created_at for each in students_of(place, stream.task)]
        self._promoted = sorted(map(to_seconds, promoted))
        ended = [each.ended_at for each in issued if (each.ended_why or "").startswith(REVOKED) and each.ended_at]
        self._revoked = sorted(map(to_seconds, ended))

    def point(self, count: int) -> Point:
        until = self._stream.time(count)
        known = self._known[count]
        return Point(
            requests=count,
            reference_share=self._calls[count] / count,
            accuracy=1 - self._losses[count] / known if known else None,
            reference_accuracy=1 - self._reference[count] / known if known else None,
            labels_used=_until(self._labels, until),
            cost_usd=self._paid[count] / _PER_USD,
            reference_cost_usd=self._would[count] / _PER_USD,
            promotions=_until(self._promoted, until),
            revocations=_until(self._revoked, until),
        )


def _add(sums: list[Any], value: float) -> None:
    sums.append(sums[-1] + value)


def _calls(check: Check, reference: str) -> int:
    """How often the reference was asked."""
    return sum(each.route == reference for receipt in (check.receipt, *check.beside) for each in receipt.attempts)


def _until(times: Sequence[float], until: float) -> int:
    return sum(each <= until for each in times)
