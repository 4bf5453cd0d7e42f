"""What each part measures is a row of one table."""

from __future__ import annotations

import msgspec


class Measured(msgspec.Struct, frozen=True):
    """A figure and its limit; `most` says whether the limit is the most or the least allowed, None: there is none."""

    figure: str
    value: float
    unit: str
    range: str  # of single rounds
    limit: float | None = None
    most: bool = True

    @property
    def missed(self) -> bool:
        """Whether it is on the wrong side of its limit."""
        return self.limit is not None and (self.value > self.limit if self.most else self.value < self.limit)

    def line(self) -> str:
        """A line of a Markdown table."""
        limit = "" if self.limit is None else f"{'at most' if self.most else 'at least'} {self.limit:g} {self.unit}"
        missed = " **missed**" if self.missed else ""
        return f"| {self.figure} | {self.value:.3g} {self.unit} | {self.range} | {limit}{missed} |"
