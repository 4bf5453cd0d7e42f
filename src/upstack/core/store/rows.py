"""Receipts and outcomes as rows of tables, and back.

A row is flat: what a database binds as it is. The contents (request and answer) travel and are kept apart from it.
"""

from __future__ import annotations

import time
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from upstack.core.types import Attempt, Outcome, Receipt, Usage

Row = tuple[Any, ...]  # the values of COLUMNS
Content = tuple[bytes | None, bytes | None, str | None, bool]  # request, answer, subject, to be encrypted

NO_CONTENT: Content = (None, None, None, False)

COLUMNS = (
    "id",
    "created_at",
    "state",
    "model",
    "task",
    "strategy",
    "plan",
    "why",
    "route",
    "stream",
    "status",
    "error",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost_picodollars",
    "first_byte_s",
    "duration_s",
    "attempts",
    "capture",
    "key",
    "team",
    "episode",
    "reserved_picodollars",
    "coin",
    "check_of",
)

_STREAM, _COIN = COLUMNS.index("stream"), COLUMNS.index("coin")

# In the order in which they are hashed; as above a later version may only add to the end.
OUTCOME_COLUMNS = (
    "id",
    "created_at",
    "observed_at",
    "receipt",
    "episode",
    "only_key",
    "name",
    "success",
    "score",
    "withdrawn",
    "source",
    "key",
    "idempotency_key",
)
OUTCOME_MARK = ("outcome",)  # is hashed before them: no receipt can pass for an outcome

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[Attempt, ...]).decode
_NO_USAGE = (None, None, None, None, None)


def to_row(receipt: Receipt) -> Row:
    """Flatten a receipt: times become text, attempts JSON. OverflowError or ValueError where a number is absurd."""
    try:
        attempts = _encode(receipt.attempts).decode()
    except UnicodeEncodeError:
        attempts = _encode(clean(msgspec.to_builtins(receipt.attempts))).decode()
    usage = receipt.usage
    return (
        receipt.id,
        moment(receipt.created_at),
        receipt.state,
        receipt.model,
        receipt.task,
        receipt.strategy,
        receipt.plan,
        receipt.why,
        receipt.route,
        1 if receipt.stream else 0,
        receipt.status,
        receipt.error,
        *(
            _NO_USAGE
            if usage is None
            else (
                usage.input_tokens,
                usage.output_tokens,
                usage.cached_input_tokens,
                usage.cache_write_tokens,
                usage.reasoning_tokens,
            )
        ),
        receipt.cost_picodollars,
        receipt.first_byte_s,
        receipt.duration_s,
        attempts,
        receipt.capture,
        receipt.key,
        receipt.team,
        receipt.episode,
        receipt.reserved_picodollars,
        receipt.coin,
        receipt.check_of,
    )


def is_opened(row: Row) -> bool:
    """Whether a receipt's beginning was noted before it: of a stream, and of what a coin fell for."""
    return bool(row[_STREAM]) or row[_COIN] is not None


def to_receipt(row: Row, content: Content = NO_CONTENT) -> Receipt:
    """Rebuild the receipt that `to_row` flattened."""
    usage = None if row[12] is None else Usage(*row[12:17])
    return Receipt(
        id=row[0],
        created_at=to_seconds(row[1]),
        state=row[2],
        model=row[3],
        task=row[4],
        strategy=row[5],
        plan=row[6],
        why=row[7],
        route=row[8],
        stream=bool(row[9]),
        status=row[10],
        error=row[11],
        first_byte_s=row[18],
        duration_s=row[19],
        usage=usage,
        cost_picodollars=row[17],
        attempts=_decode(row[20]),
        capture=row[21],
        key=row[22],
        team=row[23],
        episode=row[24],
        reserved_picodollars=row[25],
        coin=row[26],
        check_of=row[27],
        request=content[0],
        answer=content[1],
        subject=content[2],
        encrypted=content[3],
    )


def to_outcome_row(outcome: Outcome) -> Row:
    """Flatten an outcome, with what UTF-8 cannot hold escaped."""
    value = outcome.value
    return (
        outcome.id,
        moment(outcome.created_at),
        moment(outcome.observed_at),
        outcome.receipt,
        clean(outcome.episode),
        outcome.only_key,
        outcome.name,
        int(value) if isinstance(value, bool) else None,
        None if isinstance(value, bool) else value,
        1 if outcome.withdrawn else 0,
        clean(outcome.source),
        outcome.key or "",
        clean(outcome.idempotency_key),
    )


def to_outcome(row: Row, content: Content = NO_CONTENT) -> Outcome:
    """Rebuild the outcome that `to_outcome_row` flattened; `content` is comment, demonstration and so on."""
    told: dict[str, Any] = dict(zip(OUTCOME_COLUMNS, row, strict=True))
    success, score = told.pop("success"), told.pop("score")
    for name in ("created_at", "observed_at"):
        told[name] = to_seconds(told[name])
    told["withdrawn"] = bool(told["withdrawn"])
    told["key"] = told["key"] or None
    comment, demonstration, subject, encrypted = content
    return Outcome(
        **told,
        value=score if success is None else bool(success),
        comment=comment,
        demonstration=demonstration,
        subject=subject,
        encrypted=encrypted,
    )


def to_seconds(moment: str) -> float:
    """Unix seconds of what `moment` wrote."""
    return datetime.fromisoformat(moment).timestamp()


def moment(seconds: float) -> str:
    """Write Unix seconds as UTC, in the one form that sorts as text."""
    second, microseconds = divmod(int(seconds * 1_000_000 + 0.5), 1_000_000)
    return f"{_second(second)}.{microseconds:06d}Z"


@lru_cache(maxsize=16)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def clean(value: Any) -> Any:
    r"""Replace lone surrogates, which UTF-8 cannot hold, by their escape (`\ud800`), in containers too."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(clean(item) for item in value)
    return value
