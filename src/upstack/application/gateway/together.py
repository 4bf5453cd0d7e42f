"""What the workers of one gateway tell each other now and then: rests of targets, reloads, counters."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from upstack.application.gateway.exposition import add_up, exposition
from upstack.application.gateway.gateway import Gateway
from upstack.application.gateway.state import target_keys
from upstack.core.errors import UpstackError
from upstack.core.slots import Slot, Slots

GONE = "metrics-gone"  # the file of what workers that died had counted

_TARGETS = 2000  # whose health is shared
_US = 1_000_000
_RESTS, _HELD, _ANSWERED, _FAILED, _FIRST_BYTE = range(5)  # cells of a target's slot; times in microseconds


class Place(msgspec.Struct, frozen=True):
    """A worker's place among the others."""

    row: int  # from 1
    workers: int
    memory: int  # descriptor of the slots
    leash: int  # descriptor that ends when the supervisor does
    folder: Path  # of what the workers share by name
    door: str | None  # the ledger writer's socket; None: nothing is recorded
    port: int


class Together:
    """One worker's view of the others. `look` is called now and then, from the event loop."""

    def __init__(self, gateway: Gateway, place: Place, slots: Slots) -> None:
        self._gateway = gateway
        self._place = place
        self._slots = slots
        self._targets: dict[str, Slot] = {}
        self._adopted: dict[str, float] = {}
        self._reload = slots.find("reload")
        self._reloads = self._count()
        self._written = b""
        gateway.on_learned = self._adopt

    def look(self) -> bool:
        """Tell, and take over what the others tell; True where one of them was asked to reload."""
        self._share_health()
        self._write_metrics()
        count = self._count()
        asked, self._reloads = count != self._reloads, count
        return asked

    def reloaded(self) -> None:
        """Tell the others that this worker was asked to reload."""
        self._reload.mine[0] += 1
        self._reloads = self._count()

    def metrics(self) -> bytes:
        """The metrics of all workers, those that died included."""
        others = (self._place.folder / f"metrics-{row}" for row in range(1, self._place.workers + 1))
        mine = self._place.folder / f"metrics-{self._place.row}"
        pages = [exposition(self._gateway)]
        for file in [*(other for other in others if other != mine), self._place.folder / GONE]:
            with contextlib.suppress(FileNotFoundError):
                pages.append(file.read_bytes())
        return add_up(pages)

    def totals(self, key: str) -> tuple[int, int, float] | None:
        """Answers and failures of a target in all workers, and the mean of their first-byte averages, in seconds."""
        slot = self._targets.get(key)
        if slot is None:
            return None
        answered = sum(row[_ANSWERED] for row in slot.rows)
        weighed = sum(row[_ANSWERED] * row[_FIRST_BYTE] for row in slot.rows)
        return answered, sum(row[_FAILED] for row in slot.rows), weighed / answered / _US if answered else 0.0

    def _count(self) -> int:
        return sum(row[0] for row in self._reload.rows)

    def _share_health(self) -> None:
        health = self._gateway.health
        for key in list(health.targets):
            slot = self._slot(key)
            if slot is None:
                continue
            record, mine = health.targets[key], slot.mine
            until = health.resting.get(key, 0.0)
            own = until != self._adopted.get(key)  # what was taken over is not told on
            mine[_RESTS] = int(until * _US) if own else 0
            mine[_HELD] = int(health.held.get(key, 0.0) * _US) if own else 0
            mine[_ANSWERED], mine[_FAILED] = record.answered, record.failed
            mine[_FIRST_BYTE] = int(record.first_byte_s * _US)
        self._adopt()

    def _adopt(self) -> None:
        """Take over the rests that other workers found out."""
        health = self._gateway.health
        now = self._gateway.clock.monotonic()
        for key in target_keys(self._gateway.state.plans):
            self._slot(key)
        for key, slot in self._targets.items():
            others = [row for row in slot.rows if row is not slot.mine]
            until = max(row[_RESTS] for row in others) / _US
            if until > max(now, health.resting.get(key, 0.0)):
                self._adopted[key] = until
                health.adopt(key, until, max(row[_HELD] for row in others) / _US)

    def _slot(self, key: str) -> Slot | None:
        slot = self._targets.get(key)
        if slot is None and len(self._targets) < _TARGETS:
            with contextlib.suppress(UpstackError):
                slot = self._targets[key] = self._slots.find(f"health/{key}")
        return slot

    def _write_metrics(self) -> None:
        page = exposition(self._gateway)
        if page != self._written:
            _replace(self._place.folder / f"metrics-{self._place.row}", page)
            self._written = page


def bury(folder: Path, row: int) -> None:
    """Keep what a worker that died had counted, so that no counter goes back."""
    with contextlib.suppress(FileNotFoundError):
        pages = _pages([folder / GONE, folder / f"metrics-{row}"])
        _replace(folder / GONE, add_up(pages, counters_alone=True))
        (folder / f"metrics-{row}").unlink()


def _pages(files: Iterable[Path]) -> list[bytes]:
    return [file.read_bytes() for file in files if file.exists()]


def _replace(file: Path, data: bytes) -> None:
    draft = file.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):  # a full disk: the metrics are late
        draft.write_bytes(data)
        draft.replace(file)
