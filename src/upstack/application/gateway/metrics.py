"""Counters of the gateway: plain integers, cheap enough for the hot path. `exposition` shows them."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict

from upstack.core.types import Receipt

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)  # seconds

LABELS = 2000  # routes told apart; callers can name any number of them
OTHER = "(other)"


class Histogram:
    """Values by bucket, in seconds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def note(self, value: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Each bound with how many lie at or below it, as Prometheus has it."""
        running, rows = 0, []
        for bound, count in zip([*map(str, BUCKETS), "+Inf"], self.counts, strict=True):
            running += count
            rows.append((bound, float(running)))
        return rows


class _Row:
    """What is counted of the requests that one route ended in one way for one task."""

    __slots__ = ("cost", "count", "input", "output", "unknown")

    def __init__(self) -> None:
        self.count = 0
        self.input = 0
        self.output = 0
        self.cost = 0  # picodollars
        self.unknown = 0  # requests whose cost is unknown


class Metrics:
    """What the hot path counts."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str | None, str | None, str], _Row] = {}  # by route, task, state
        self.failures: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.duration = Histogram()
        self.first_byte = Histogram()
        self.reloads_refused = 0

    def note(self, receipt: Receipt) -> None:
        """Count one ended request."""
        row = self.rows.get((receipt.route, receipt.task, receipt.state)) or self._new_row(receipt)
        row.count += 1
        if receipt.cost_picodollars is None:
            row.unknown += 1
        else:
            row.cost += receipt.cost_picodollars
        if receipt.usage is not None:
            row.input += receipt.usage.input_tokens
            row.output += receipt.usage.output_tokens
        if receipt.check_of is None:  # nobody waits for what is asked beside an answer
            self.duration.note(receipt.duration_s)
            if receipt.first_byte_s is not None:
                self.first_byte.note(receipt.first_byte_s)
        if len(receipt.attempts) > 1 or receipt.state != "answered":
            for attempt in receipt.attempts:
                if attempt.failure is not None:
                    key = (attempt.route, attempt.failure)
                    if key not in self.failures and len(self.failures) >= LABELS:
                        key = (OTHER, attempt.failure)
                    self.failures[key] += 1

    def _new_row(self, receipt: Receipt) -> _Row:
        route = receipt.route if len(self.rows) < LABELS else OTHER
        return self.rows.setdefault((route, receipt.task, receipt.state), _Row())
