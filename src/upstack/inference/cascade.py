"""What follows an attempt that failed: which target next, after which wait, or give up. Pure decisions only."""

from __future__ import annotations

import random
from collections.abc import Sequence

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
_ALL_ALIKE = {Failure.RATE_LIMITED: 429, Failure.NOT_FOUND: 404, Failure.STOPPING: 503}
_FINAL = frozenset({Failure.AUTH, Failure.NOT_FOUND, Failure.CALLER, Failure.TOO_LARGE, Failure.RESIDENCY})


class Tried(msgspec.Struct, frozen=True):
    """An attempt that failed: which of the plan's targets, and how."""

    index: int
    error: SupplyError


class Step(msgspec.Struct, frozen=True):
    """The next attempt: which of the plan's targets, after how many seconds."""

    index: int
    delay: float


def next_step(plan: Plan, tried: Sequence[Tried], rng: random.Random) -> Step | None:
    """Choose the next attempt after `tried` (at least one), or None to give up.

    First every target once, at once. Then those whose failure may pass, round by round, with full-jitter exponential
    backoff and never before the Retry-After they sent, for at most `plan.retries` attempts. A request the provider
    calls wrong (400, 422) goes nowhere else; a pooled connection found closed costs nothing.
    """
    last = tried[-1]
    if last.error.failure is Failure.CALLER:
        return None
    if last.error.failure is Failure.STALE and _stale_in_a_row(tried) <= STALE_TRIES:
        return Step(last.index, 0.0)
    counted = [attempt for attempt in tried if attempt.error.failure is not Failure.STALE]
    fresh = max(attempt.index for attempt in tried) + 1
    if fresh < len(plan.targets):
        return Step(fresh, 0.0)
    done = len(counted) - len(plan.targets)
    if done >= plan.retries:
        return None
    return _retry(tried, done, rng)


def summary(plan: Plan, tried: Sequence[Tried]) -> SupplyError:
    """Say what to tell the caller when nobody answered.

    404 if no provider knows the model, 429 if all were rate limited, 504 if all timed out, else 502.
    """
    told = ", then ".join(f"{plan.targets[attempt.index].route.name}: {attempt.error.message}" for attempt in tried)
    failures = {attempt.error.failure for attempt in tried}
    status = (
        504 if failures <= TIMEOUTS else _ALL_ALIKE.get(tried[-1].error.failure, 502) if len(failures) == 1 else 502
    )
    waits = [attempt.error.retry_after for attempt in tried if attempt.error.retry_after is not None]
    return SupplyError(
        tried[-1].error.failure,
        f"No route answered '{plan.model}'. {told}",
        status=status,
        retry_after=min(waits, default=None),
    )


def _retry(tried: Sequence[Tried], done: int, rng: random.Random) -> Step | None:
    latest = {attempt.index: attempt.error for attempt in tried}
    hopeful = [index for index, error in latest.items() if error.failure not in _FINAL]
    waits = {index: latest[index].retry_after or 0.0 for index in hopeful}
    hopeful = [index for index in hopeful if waits[index] <= LONGEST_WAIT]
    if not hopeful:
        return None
    least_tried = min(hopeful, key=lambda index: (sum(t.index == index for t in tried), waits[index], index))
    passes = done // len(latest)
    backoff = rng.uniform(0.0, min(LONGEST_BACKOFF, FIRST_BACKOFF * 2**passes))
    return Step(least_tried, waits[least_tried] + backoff)


def _stale_in_a_row(tried: Sequence[Tried]) -> int:
    count = 0
    for attempt in reversed(tried):
        if attempt.error.failure is not Failure.STALE:
            break
        count += 1
    return count
