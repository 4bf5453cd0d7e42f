"""From attempts to the receipt of a request. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from upstack.core.errors import Failure
from upstack.core.types import Attempt, Capture, Picodollars, Plan, Receipt, ReceiptState, Request
from upstack.inference.cost import MOST_COST

# The request was not sent, or was sent over a connection that had been closed.
_UNREAD = frozenset({Failure.REFUSED, Failure.CONNECT_TIMEOUT, Failure.POOL_FULL, Failure.STALE, Failure.RESIDENCY})
# The provider's whole answer was that it does not serve the request.
_DECLINED = frozenset(
    {Failure.RATE_LIMITED, Failure.STATUS, Failure.AUTH, Failure.NOT_FOUND, Failure.CALLER, Failure.UNFIT}
)
_PROXYS_WORD = frozenset({502, 504, 520, 524})  # of a proxy that got no answer: whoever is behind it may have made one


class Ending(msgspec.Struct, frozen=True, gc=False):
    """How a request ended. Times in seconds after it came in."""

    state: ReceiptState
    status: int  # HTTP status the caller saw
    duration_s: float
    error: str | None = None
    first_byte_s: float | None = None
    answer: bytes | None = None
    served: int = -1  # which of the attempts it is of


class Asked(msgspec.Struct, frozen=True, gc=False):
    """Who asked, on which terms."""

    key: str | None = None
    team: str | None = None
    reserved: Picodollars | None = None
    note: str | None = None  # about the terms, for `why`


NOBODY = Asked()


def finish(
    receipt_id: str,
    created_at: float,
    request: Request,
    plan: Plan,
    attempts: Sequence[Attempt],
    ending: Ending,
    asked: Asked = NOBODY,
    salt: bytes = b"",
) -> Receipt:
    """Make the receipt; `salt` goes into the digests of `capture = "hash"`.

    The cost is the sum over all attempts, or None where one that may be billed has no known price or usage. The usage
    is that of the attempt that was served.
    """
    served = attempts[ending.served] if attempts and ending.state in {"answered", "truncated", "cancelled"} else None
    if served is not None and ending.state == "cancelled" and served.failure != "cancelled":
        served = None  # between two attempts: nobody was answering
    capture = plan.capture
    why = plan.why if len(attempts) < 2 else f"{plan.why}; {_story(attempts)}"
    return Receipt(
        id=receipt_id,
        created_at=created_at,
        state=ending.state,
        model=request.model,
        task=plan.task,
        strategy=plan.strategy,
        plan=", ".join([target.key for target in (*plan.arms, *plan.targets)]),
        why=why if asked.note is None else f"{why}. {asked.note}",
        route=served.route if served is not None else None,
        stream=request.stream,
        status=ending.status,
        error=ending.error,
        first_byte_s=ending.first_byte_s,
        duration_s=ending.duration_s,
        usage=served.usage if served is not None else None,
        cost_picodollars=total_cost(attempts),
        attempts=tuple(attempts),
        capture=capture,
        request=request.body if capture == "full" else _digest(request.body, capture, salt),
        answer=ending.answer if capture == "full" else _digest(ending.answer, capture, salt),
        key=asked.key,
        team=asked.team,
        episode=request.episode,
        reserved_picodollars=asked.reserved,
        subject=None if capture == "none" else request.subject,
        encrypted=plan.encrypt and capture != "none",
        coin=plan.coin,
        check_of=plan.check_of,
    )


def surely_free(failure: Failure, status: int | None) -> bool:
    """Say whether a failed attempt cannot be billed; `status` is that of its answer, None where none came.

    Of a request that was sent and got no whole refusal nobody knows: its cost is unknown, never 0.
    """
    return failure in _UNREAD or (failure in _DECLINED and status not in _PROXYS_WORD)


def total_cost(attempts: Sequence[Attempt]) -> Picodollars | None:
    """Sum the costs of `attempts`; unknown plus anything is unknown, and so is a sum that no ledger's integer holds."""
    total = 0
    for attempt in attempts:
        if attempt.cost_picodollars is None:
            return None
        total += attempt.cost_picodollars
    return total if total <= MOST_COST else None


def _story(attempts: Sequence[Attempt]) -> str:
    return ", then ".join(f"{attempt.route} {attempt.failure or 'answered'}" for attempt in attempts)


def _digest(content: bytes | None, capture: Capture, salt: bytes) -> bytes | None:
    if content is None or capture == "none":
        return None
    return b"sha256:%b:%b" % (salt.hex().encode(), hashlib.sha256(salt + content).hexdigest().encode())
