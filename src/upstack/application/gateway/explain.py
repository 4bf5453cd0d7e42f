"""A receipt in words and in JSON: `upstack why` and `GET /v1/receipts/{id}`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from upstack.core.config import Config
from upstack.core.types import DAY_S, Attempt, Outcome, Picodollars, Receipt
from upstack.inference.outcomes import Verdict, verdict

REPLAYED = " (replayed)"
_ENDED = {
    "answered": "answered",
    "truncated": "cut off after the answer had begun",
    "failed": "not answered",
    "cancelled": "given up by the caller",
    "open": "still being answered",
}


def explain(
    receipt: Receipt, outcomes: Sequence[Outcome] = (), maturity: float = 0.0, now: float = 0.0
) -> dict[str, Any]:
    """Everything a receipt holds and was told of it, JSON-ready, with `words`: the same for a person.

    `maturity` of its task in seconds, `now` in Unix seconds.
    """
    whole: dict[str, Any] = msgspec.to_builtins(receipt)
    whole["created_at"] = datetime.fromtimestamp(receipt.created_at, UTC).isoformat(timespec="milliseconds")
    whole["cost_usd"] = None if receipt.cost_picodollars is None else usd(receipt.cost_picodollars)
    reserved = receipt.reserved_picodollars
    whole["reserved_usd"] = None if reserved is None else usd(reserved)
    whole["replayed"] = _replayed(receipt)
    whole["request"] = _content(receipt.request)
    whole["answer"] = _content(receipt.answer)
    whole["outcomes"] = [_outcome(each) for each in outcomes]
    whole["words"] = in_words(receipt) + outcomes_in_words(receipt, outcomes, maturity, now)
    return whole


def maturity_of(config: Config, receipt: Receipt) -> float:
    """How many seconds after a receipt its outcome may still come, by its task; 0 where the task does not say."""
    task = config.tasks.get(receipt.task or "")
    return 0.0 if task is None else task.maturity_days * DAY_S


def in_words(receipt: Receipt) -> list[str]:
    """Tell what happened and why, a sentence each."""
    when = datetime.fromtimestamp(receipt.created_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    by = f" by {receipt.route}{REPLAYED if _replayed(receipt) else ''}" if receipt.route else ""
    error = f" ({receipt.error})" if receipt.error else ""
    ended = _ENDED[receipt.state] if receipt.error != "gateway_restarted" else "cut off as the gateway ended"
    lines = [
        f"{when}: '{receipt.model}' was {ended}{by}{error} after {seconds(receipt.duration_s)}.",
        f"Plan: {receipt.plan}.",
        f"Why{' this route' if receipt.attempts else ''}: {receipt.why}.",
    ]
    lines += [_attempt(number, attempt) for number, attempt in enumerate(receipt.attempts, 1)]
    if receipt.key is not None:
        team = f" of the team {receipt.team}" if receipt.team else ""
        lines.append(f"Asked by the key {receipt.key}{team}.")
    if receipt.coin is not None:
        lines.append(f"A coin with a chance of {receipt.coin:g} made it a check: its other routes are asked beside it.")
    if receipt.encrypted:
        here = receipt.request is not None or receipt.answer is not None
        lines.append(f"Request and answer are kept encrypted{'' if here else ', and their key is not here'}.")
    if receipt.usage is not None:
        usage = receipt.usage
        cached = f" ({usage.cached_input_tokens} from the cache)" if usage.cached_input_tokens else ""
        reasoning = f" ({usage.reasoning_tokens} of reasoning)" if usage.reasoning_tokens else ""
        lines.append(f"Tokens: {usage.input_tokens} in{cached}, {usage.output_tokens} out{reasoning}.")
    nothing = " (no attempt is billed)" if receipt.cost_picodollars == 0 and receipt.usage is None else ""
    held = ""
    if receipt.reserved_picodollars is not None:
        how = "held for an attempt" if receipt.attempts else "would have been held"
        held = f"; ${usd(receipt.reserved_picodollars)} {how}"
    lines.append(f"Cost: {cost_in_words(receipt.cost_picodollars)}{nothing}{held}.")
    return lines


def outcomes_in_words(receipt: Receipt, outcomes: Sequence[Outcome], maturity: float, now: float) -> list[str]:
    """Tell what became of the answer, a sentence for each name of an outcome."""
    lines = []
    for name in sorted({each.name for each in outcomes}):
        found = verdict(outcomes, name, receipt.created_at, maturity, now)
        latest = found.outcome
        if latest is None:
            continue
        by = f"told by {latest.source} on {_day(latest.created_at)}"
        of = "" if latest.receipt else " of the whole episode"
        before = f"; {found.superseded} before it superseded" if found.superseded else ""
        lines.append(f"{name.capitalize()}: {_judged(found)}{of}, {by}{before}.")
    for what in ("comment", "demonstration"):
        said = next((content for each in outcomes if (content := getattr(each, what)) is not None), None)
        if said is not None:
            lines.append(f"Latest {what}: {said.decode('utf-8', 'replace')}")
    if not lines and maturity and receipt.state in {"answered", "truncated"}:
        due = _day(receipt.created_at + maturity)
        early = now < receipt.created_at + maturity
        lines.append(f"Outcome: {'not yet known, it may come' if early else 'none came'} until {due}.")
    return lines


def _judged(found: Verdict) -> str:
    value = found.outcome.value if found.outcome is not None else None
    if value is None:
        return "not known, what was told is withdrawn"
    return ("good" if value else "bad") if isinstance(value, bool) else f"{value:g} (of 0 to 1)"


def _outcome(outcome: Outcome) -> dict[str, Any]:
    whole: dict[str, Any] = msgspec.to_builtins(outcome)
    for name in ("created_at", "observed_at"):
        whole[name] = datetime.fromtimestamp(whole[name], UTC).isoformat(timespec="milliseconds")
    for name, content in (("comment", outcome.comment), ("demonstration", outcome.demonstration)):
        whole[name] = None if content is None else content.decode("utf-8", "replace")
    return whole


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")


def cost_in_words(cost: Picodollars | None) -> str:
    """USD, or why not."""
    return "unknown (no price or no usage for an attempt that may be billed)" if cost is None else f"${usd(cost)}"


def usd(cost: Picodollars) -> str:
    """Exact decimal US dollars."""
    whole, rest = divmod(cost, 10**12)
    return f"{whole}.{rest:012d}".rstrip("0").removesuffix(".") if rest else str(whole)


def seconds(duration: float) -> str:
    """A duration a person reads easily."""
    return f"{duration * 1000:.0f} ms" if duration < 1 else f"{duration:.2f} s"


def _attempt(number: int, attempt: Attempt) -> str:
    status = f", HTTP {attempt.status}" if attempt.status is not None else ""
    how = "answered" if attempt.failure is None else attempt.failure.replace("_", " ")
    price = f", price {attempt.price_version}" if attempt.price_version else ", price unknown"
    credential = f" (credential {attempt.credential})" if attempt.credential else ""
    return (
        f"Attempt {number}: {attempt.route} ({attempt.provider}/{attempt.model}, version {attempt.version})"
        f"{credential}: {how}{status} after {seconds(attempt.duration_s)}{price}."
    )


def _replayed(receipt: Receipt) -> bool:
    """Whether the answer came from a recording, so that nobody was called for it."""
    return any(each.route == receipt.route and each.version.startswith("replay:") for each in receipt.attempts)


def _content(content: bytes | None) -> Any:
    """Content as JSON where it is JSON, else as text."""
    if content is None:
        return None
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return content.decode("utf-8", "replace")
