"""What is certified at present, as gateways read it: often, and without what takes long to load."""

from __future__ import annotations

import msgspec

from upstack.core.store.reading import reading
from upstack.core.store.rows import to_seconds
from upstack.core.types import Proved

REVOKED = "revoked"  # how the reason of an alarm begins

_LATEST = "SELECT task, id, plan, summary, expires_at, ended_at, ended_why FROM certificates ORDER BY issued_at, id"
_EAGER = "SELECT task FROM submissions WHERE ended_at IS NULL AND eager = 1"


class Summary(msgspec.Struct, frozen=True):
    """What a certificate stands on: its plan in words, and what the evidence said when it was issued."""

    strategy: str
    arms: tuple[tuple[str, str], ...]  # routes, in the order they are asked before the reference, and versions
    threshold: float
    words: str
    max_loss: float
    confidence: float
    delta: float  # the error probability that this attempt may use
    checks: int
    fresh: int  # checks that no earlier attempt had
    reused: int
    excess: float
    low: float
    high: float
    cost_ratio: float


_LIVING = "SELECT task, id FROM students WHERE ended_at IS NULL ORDER BY created_at, id"


def living(place: str) -> dict[str, tuple[str, ...]]:
    """The students that live, by task, the newest last."""
    found: dict[str, tuple[str, ...]] = {}
    with reading(place) as ask:
        for task, student in ask(_LIVING):
            found[task] = (*found.get(task, ()), student)
    return found


def standings(place: str, now: float) -> dict[str, Proved]:
    """Read what is certified for each task at `now` (Unix seconds)."""
    found: dict[str, Proved] = {}
    with reading(place) as ask:
        for task, own_id, plan, summary, expires_at, ended_at, ended_why in ask(_LATEST):
            expires = to_seconds(expires_at)
            if ended_at is None and now < expires:
                said = msgspec.json.decode(summary, type=Summary)
                found[task] = Proved(own_id, said.strategy, said.arms, said.words, expires, plan=bytes(plan))
            else:
                found[task] = Proved(alarmed=(ended_why or "").startswith(REVOKED))
        for (task,) in ask(_EAGER):
            found[task] = msgspec.structs.replace(found.get(task, Proved()), eager=True)
    return found
