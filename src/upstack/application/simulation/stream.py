"""What a simulation plays: recorded requests in the order they arrive, and what is known beforehand."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import msgspec

from upstack.core.errors import EvidenceError
from upstack.core.store.ids import id_of
from upstack.core.traffic import TrafficRow
from upstack.core.types import Price

VERSION = "recorded"  # of the reference's behaviour
START = 1_767_225_600.0  # 2026-01-01: when the first request comes in
_BETWEEN_S = 60.0


class Stream(msgspec.Struct, frozen=True):
    """What is to be played."""

    task: str
    rows: tuple[TrafficRow, ...]  # in the order they arrive
    start: tuple[TrafficRow, ...]  # labelled rows known beforehand
    reference: str
    price: Price
    labels: int  # that people may be asked for
    shadow_rate: float
    seed: int
    threshold: float | None = None  # confidence from which a student serves without proof; None: certified
    usd_per_second: float = 0.0  # of a student

    def time(self, at: int) -> float:
        """When the request with this index comes in, in Unix seconds; negative ones were known beforehand."""
        return START + _BETWEEN_S * at

    def id(self, at: int) -> str:
        """The id of its receipt."""
        digest = hashlib.sha256(f"{self.seed}:{self.rows[at].id}".encode()).digest()
        return id_of(self.time(at), digest)


def shuffled(rows: Sequence[TrafficRow], reference: str, seed: int) -> tuple[TrafficRow, ...]:
    """The rows that the reference answered, in the order in which they arrive. EvidenceError where there is none."""
    answered = [row for row in rows if reference in row.answers and row.answers[reference].content]
    if not answered:
        seen = ", ".join(sorted({route for row in rows for route in row.answers})) or "none"
        raise EvidenceError(f'No row has an answer of the reference "{reference}". Routes there: {seen}')
    random.Random(seed).shuffle(answered)
    return tuple(answered)
