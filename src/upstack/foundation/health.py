"""How each target has been doing: breaker, cooldown, latency. Kept on one event loop, read through `resting`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from upstack.core.errors import Failure, SupplyError

WEIGHT = 0.15  # of the latest attempt in the failure rate and latency averages
OPEN_AT = 0.5  # failure rate at which the breaker opens: five failures in a row from a clean start
AFTER_PROBE = 0.3  # failure rate after the first success of a rested target
FIRST_REST = 5.0  # seconds; doubles each time the probe fails
LONGEST_REST = 60.0
LONGEST_RETRY_AFTER = 300.0
LARGEST = 4000  # targets remembered
SETUP_REST = 30.0  # our key is refused, or the model is unknown: it will not mend by itself soon

_BLAMELESS = frozenset({Failure.STALE, Failure.CALLER, Failure.RESIDENCY, Failure.TOO_LARGE})
_SETUP = frozenset({Failure.AUTH, Failure.NOT_FOUND})


class TargetHealth:
    """One target's record. `failure_rate` is in [0, 1]; averages are exponential, in seconds."""

    __slots__ = ("answered", "failed", "failure_rate", "first_byte_s", "rest")

    def __init__(self) -> None:
        self.answered = 0
        self.failed = 0
        self.failure_rate = 0.0
        self.first_byte_s = 0.0
        self.rest = FIRST_REST


class Health:
    """Records attempts and says which targets rest; calls `on_change` with a new mapping when that changes."""

    def __init__(self, on_change: Callable[[Mapping[str, float]], None] = lambda _: None) -> None:
        self.targets: dict[str, TargetHealth] = {}
        self.resting: Mapping[str, float] = {}
        self._on_change = on_change

    def started(self, key: str, now: float) -> None:
        """Note that a target whose rest is over is probed: others keep away until the probe is done."""
        until = self.resting.get(key)
        if until is not None and until <= now:
            self._set(key, now + self.targets[key].rest)

    def answered(self, key: str, first_byte_s: float) -> None:
        """Record a good answer."""
        record = self.targets.get(key) or self._new(key)
        record.answered += 1
        record.failure_rate *= 1.0 - WEIGHT
        record.first_byte_s += WEIGHT * (first_byte_s - record.first_byte_s) if record.answered > 1 else first_byte_s
        if key in self.resting:
            record.rest = FIRST_REST
            record.failure_rate = AFTER_PROBE
            self._set(key, None)

    def failed(self, key: str, error: SupplyError, now: float) -> None:
        """Record a failure; the target may have to rest."""
        failure, retry_after = error.failure, error.retry_after
        if failure in _BLAMELESS:
            return
        record = self.targets.get(key) or self._new(key)
        record.failed += 1
        probing = key in self.resting
        if failure is Failure.RATE_LIMITED:
            rest = min(LONGEST_RETRY_AFTER, record.rest if retry_after is None else retry_after)
            self._set(key, now + rest)
        elif failure in _SETUP:
            self._set(key, now + SETUP_REST)
        else:
            record.failure_rate += WEIGHT * (1.0 - record.failure_rate)
            if probing:
                record.rest = min(LONGEST_REST, record.rest * 2.0)
            if probing or record.failure_rate > OPEN_AT:
                self._set(key, now + record.rest)

    def forget(self, keep: set[str]) -> None:
        """Drop the records of targets that no longer exist."""
        self.targets = {key: record for key, record in self.targets.items() if key in keep}
        self.resting = {key: until for key, until in self.resting.items() if key in keep}
        self._on_change(self.resting)

    def _new(self, key: str) -> TargetHealth:
        if len(self.targets) >= LARGEST:  # callers can name any number of models: the longest known make room
            self.forget({*list(self.targets)[LARGEST // 2 :], key})
        record = self.targets[key] = TargetHealth()
        return record

    def _set(self, key: str, until: float | None) -> None:
        resting = {other: time for other, time in self.resting.items() if other != key}
        if until is not None:
            resting[key] = until
        self.resting = resting
        self._on_change(resting)
