"""Self-consistency: the second answer of a route, where one was recorded, stands as that of another route."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from upstack.core.traffic import RecordedAnswer, TrafficRow

AGAIN = ":again"  # after the name of a route
_MOST_LACK = 0.1  # share of the rows without a second answer, above which there is none


def asked_again(rows: Sequence[TrafficRow], routes: Sequence[str]) -> tuple[list[TrafficRow], list[str]]:
    """Give rows that hold second answers, and the names they stand under; those of `routes` that were asked again."""
    twice = [route for route in routes if sum(_second(row, route) is None for row in rows) <= _MOST_LACK * len(rows)]
    if not twice:
        return list(rows), []
    found = [
        replace(
            row,
            answers={
                **row.answers,
                **{route + AGAIN: second for route in twice if (second := _second(row, route)) is not None},
            },
        )
        for row in rows
    ]
    return found, [route + AGAIN for route in twice]


def may_pair(one: str, other: str) -> bool:
    """Whether two routes say more together than one: a second answer does beside its first."""
    return other == one + AGAIN or not (one.endswith(AGAIN) or other.endswith(AGAIN))


def _second(row: TrafficRow, route: str) -> RecordedAnswer | None:
    """Its size and cost are taken to be the first one's; its loss too if it says the same, else a full one."""
    answer = row.answers.get(route)
    if answer is None or not answer.samples:
        return None
    content, loss = answer.samples[0], answer.loss
    if loss is not None and content != answer.content:
        loss = None if row.truth is not None else 1.0  # None: it is graded
    return replace(answer, content=content, loss=loss, samples=None, logprobs=None)
