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

_ALIVE = frozenset({Failure.CALLER, Failure.UNFIT})  # the request is at fault, and the route well enough to say so
_BLAMELESS = _ALIVE | {Failure.STALE, Failure.RESIDENCY, Failure.TOO_LARGE, Failure.POOL_FULL}
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
    """Records attempts and says which targets rest; calls `on_change` with a new mapping when that changes.

    `held` are those of the resting whose provider asked for it: they are not to be asked before. The rest of the others
    is our guess, which a probe may try.
    """

    def __init__(self, on_change: Callable[[Mapping[str, float]], None] = lambda _: None) -> None:
        self.targets: dict[str, TargetHealth] = {}
        self.resting: Mapping[str, float] = {}
        self.held: Mapping[str, float] = {}
        self._on_change = on_change

    def started(self, key: str, now: float) -> None:
        """Note that a target whose rest is over is probed: others keep away until the probe is done."""
        until = self.resting.get(key)
        if until is None:
            return
        hold = self.held.get(key)
        if until <= now:
            self._set(key, now + self.targets[key].rest)
        elif hold is not None and hold <= now:
            self._set(key, until)

    def answered(self, key: str, first_byte_s: float) -> None:
        """Record a good answer."""
        record = self.targets.get(key) or self._new(key)
        record.answered += 1
        record.failure_rate *= 1.0 - WEIGHT
        record.first_byte_s += WEIGHT * (first_byte_s - record.first_byte_s) if record.answered > 1 else first_byte_s
        if key in self.resting:
            self._wake(key, record)

    def failed(self, key: str, error: SupplyError, now: float) -> None:
        """Record a failure; the target may have to rest."""
        failure, retry_after = error.failure, error.retry_after
        if failure in _BLAMELESS:
            if failure in _ALIVE and key in self.resting:
                self._wake(key, self.targets[key])
            return
        record = self.targets.get(key) or self._new(key)
        record.failed += 1
        probing = key in self.resting and key not in self.held
        until = 0.0
        if failure in _SETUP:
            until = now + SETUP_REST
        elif failure is Failure.RATE_LIMITED:
            until = now if retry_after is not None else now + record.rest
        else:
            record.failure_rate += WEIGHT * (1.0 - record.failure_rate)
            if probing:
                record.rest = min(LONGEST_REST, record.rest * 2.0)
            if probing or record.failure_rate > OPEN_AT:
                until = now + record.rest
        asked = now + min(LONGEST_RETRY_AFTER, retry_after) if retry_after is not None else 0.0
        hold = max(asked, self.held.get(key, 0.0))  # what began before the provider asked does not cut its rest short
        if max(until, hold) > now:
            self._set(key, max(until, hold), hold)

    def adopt(self, key: str, until: float, hold: float) -> None:
        """Let a target rest as another process of the gateway found that it must."""
        if until > self.resting.get(key, 0.0):
            if key not in self.targets:
                self._new(key)
            self._set(key, until, max(hold, self.held.get(key, 0.0)))

    def forget(self, keep: set[str]) -> None:
        """Drop the records of targets that no longer exist."""
        self.targets = {key: record for key, record in self.targets.items() if key in keep}
        self.resting = {key: until for key, until in self.resting.items() if key in keep}
        self.held = {key: until for key, until in self.held.items() if key in keep}
        self._on_change(self.resting)

    def _new(self, key: str) -> TargetHealth:
        if len(self.targets) >= LARGEST:  # callers can name any number of models: those least asked make room
            by_use = sorted(self.targets, key=lambda key: self.targets[key].answered + self.targets[key].failed)
            self.forget({*by_use[LARGEST // 2 :], key})
        record = self.targets[key] = TargetHealth()
        return record

    def _wake(self, key: str, record: TargetHealth) -> None:
        """End a rest, as its probe went well; what began before the provider asked for its rest is no probe."""
        if key not in self.held:
            record.rest = FIRST_REST
            record.failure_rate = AFTER_PROBE
            self._set(key, 0.0)

    def _set(self, key: str, until: float, hold: float = 0.0) -> None:
        """Let a target rest `until` then, as its provider asked up to `hold`; 0: not at all."""
        self.resting = _with(self.resting, key, until)
        if hold or key in self.held:
            self.held = _with(self.held, key, hold)
        self._on_change(self.resting)


def _with(times: Mapping[str, float], key: str, time: float) -> Mapping[str, float]:
    changed = {other: until for other, until in times.items() if other != key}
    if time:
        changed[key] = time
    return changed
