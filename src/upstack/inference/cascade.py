"""What follows an attempt that failed: which target next, after which wait, or give up. Pure decisions only."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import msgspec

from upstack.core.errors import Failure, SupplyError
from upstack.core.types import Plan

FIRST_BACKOFF = 0.25  # seconds; doubles with each further pass
LONGEST_BACKOFF = 8.0
LONGEST_WAIT = 30.0  # a provider that asks for more is not waited for
STALE_TRIES = 3  # pooled connections that may turn out closed in a row

TIMEOUTS = frozenset(
    {
        Failure.CONNECT_TIMEOUT,
        Failure.FIRST_BYTE_TIMEOUT,
        Failure.BETWEEN_BYTES_TIMEOUT,
        Failure.TOTAL_TIMEOUT,
    }
)
_ALL_ALIKE = {Failure.RATE_LIMITED: 429, Failure.NOT_FOUND: 404, Failure.POOL_FULL: 503, Failure.STOPPING: 503}
_FINAL = frozenset(
    {Failure.AUTH, Failure.NOT_FOUND, Failure.CALLER, Failure.UNFIT, Failure.TOO_LARGE, Failure.RESIDENCY}
)
_DOUBLINGS = 16  # of the backoff at most: far beyond the longest, and no float overflows


class Tried(msgspec.Struct, frozen=True):
    """An attempt that failed: which of the plan's targets, and how."""

    index: int
    error: SupplyError


class Step(msgspec.Struct, frozen=True):
    """The next attempt: which of the plan's targets, after how many seconds."""

    index: int
    delay: float


def next_step(
    plan: Plan, tried: Sequence[Tried], rng: random.Random, held: Mapping[str, float] = {}, now: float = 0.0
) -> Step | None:
    """Choose the next attempt after `tried` (at least one), or None to give up.

    First every target once, at once, but for those whose provider wants to be left alone: `held`, by target key, until
    when, on the clock of `now`. Then these and those whose failure may pass, round by round, with full-jitter
    exponential backoff and never before their Retry-After, for at most `plan.retries` attempts. A request the provider
    calls wrong (400, 422) goes nowhere else, and one its model cannot take to no other key of the same route; a pooled
    connection found closed costs nothing.
    """
    last = tried[-1]
    if last.error.failure is Failure.CALLER:
        return None
    if last.error.failure is Failure.STALE and _stale_in_a_row(tried) <= STALE_TRIES:
        return Step(last.index, 0.0)
    latest = {attempt.index: attempt.error for attempt in tried}
    unfit = {plan.targets[index].route.name for index, error in latest.items() if error.failure is Failure.UNFIT}
    waits: dict[int, float] = {}  # of the targets that may yet answer
    for index, target in enumerate(plan.targets):
        wait = max(0.0, held.get(target.key, 0.0) - now)
        error = latest.get(index)
        if error is None and not wait and target.route.name not in unfit:
            return Step(index, 0.0)
        if target.route.name not in unfit and (error is None or error.failure not in _FINAL):
            waits[index] = max(wait, (error.retry_after or 0.0) if error is not None else 0.0)
    counted = sum(attempt.error.failure is not Failure.STALE for attempt in tried)
    return _retry(waits, tried, counted - len(latest), plan.retries, rng)


def summary(plan: Plan, tried: Sequence[Tried]) -> SupplyError:
    """Say what to tell the caller when nobody answered.

    404 if no provider knows the model, 429 if all were rate limited, 504 if all timed out, else 502.
    """
    told = ", then ".join(f"{plan.targets[attempt.index].route.name}: {attempt.error.message}" for attempt in tried)
    failures = {attempt.error.failure for attempt in tried}
    status = (
        504 if failures <= TIMEOUTS else _ALL_ALIKE.get(tried[-1].error.failure, 502) if len(failures) == 1 else 502
    )
    latest = {attempt.index: attempt.error for attempt in tried}.values()
    waits = [error.retry_after for error in latest if error.retry_after is not None]
    return SupplyError(
        tried[-1].error.failure,
        f"No route answered '{plan.model}'. {told}",
        status=status,
        retry_after=min(waits) if len(waits) == len(latest) else None,  # one that asked for none may be well sooner
    )


def _retry(
    waits: Mapping[int, float], tried: Sequence[Tried], done: int, retries: int, rng: random.Random
) -> Step | None:
    hopeful = [index for index, wait in waits.items() if wait <= LONGEST_WAIT]
    if not hopeful or done >= retries:
        return None
    # One that was held back is no more promising than one that was asked once.
    least_tried = min(hopeful, key=lambda index: (max(1, sum(t.index == index for t in tried)), waits[index], index))
    passes = min(done // len({attempt.index for attempt in tried}), _DOUBLINGS)
    backoff = rng.uniform(0.0, min(LONGEST_BACKOFF, FIRST_BACKOFF * 2**passes))
    return Step(least_tried, waits[least_tried] + backoff)


def _stale_in_a_row(tried: Sequence[Tried]) -> int:
    count = 0
    for attempt in reversed(tried):
        if attempt.error.failure is not Failure.STALE:
            break
        count += 1
    return count
