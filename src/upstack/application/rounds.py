"""The worker: `python -m upstack.application.rounds`, what to look at as lines of JSON on standard input.

A process of its own, as it takes seconds of a processor and loads what serving does without. It ends where standard
input does: the gateway has gone. On standard output it says what it did, in lines of JSON.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from upstack.application.learning import Wish
from upstack.application.proving.prover import Picture, Prover
from upstack.core.config.rights import RightsConfig
from upstack.core.config.tables import LoopConfig
from upstack.core.errors import LedgerError, UpstackError
from upstack.core.store.checks import newest
from upstack.core.store.proofs import proving
from upstack.core.store.reading import LEDGER_EMPTY
from upstack.core.types import Terms

_NICE = 10  # whoever answers requests comes first
_TICK_S = 0.5
_SHARE = 10  # times as long as a look took, it pauses
_SURELY_S = 60.0  # after which it looks though nothing is new: certificates expire


class Job(msgspec.Struct, frozen=True):
    """Which ledger, and which tasks."""

    place: str
    keystore: str | None
    tasks: Mapping[str, Terms]
    wishes: Mapping[str, Wish] = {}  # of those that learn
    loop: LoopConfig = LoopConfig()
    rights: RightsConfig = RightsConfig()


class Word(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was done of a task, or why nothing can be."""

    task: str | None = None
    did: tuple[str, ...] = ()
    error: str | None = None


class Worker:
    """Looks again and again."""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._prover: Prover | None = None
        self._seen: Any = None
        self._looked = 0.0
        self._failed: dict[str, str] = {}
        self._loops: dict[str, tuple[Any, Any]] = {}

    def take(self, job: Job) -> None:
        """Look at this from now on."""
        self._job, self._seen = job, None
        self._prover = Prover(job.place, job.keystore)

    def turn(self) -> list[Word]:
        """Look, where there is something new; LedgerError where the ledger fails."""
        job = self._job
        prover = self._prover
        if job is None or prover is None or not job.tasks:
            return []
        seen = newest(job.place)
        if seen == self._seen and time.monotonic() < self._looked + _SURELY_S:
            return []
        said = []
        with proving(job.place) as mine:
            if not mine:
                return []
            for task, terms in job.tasks.items():
                word = self._look(prover, task, terms)
                if word is not None:
                    said.append(word)
        self._looked = time.monotonic()
        self._seen = None if said else seen  # what was done may be followed by more
        return said

    def _look(self, prover: Prover, task: str, terms: Terms) -> Word | None:
        try:
            picture = self._picture(prover, task, terms)
        except LedgerError:
            raise
        except UpstackError as error:
            return self._error(task, error.message)
        self._failed.pop(task, None)
        return Word(task, picture.did) if picture.did else None

    def _picture(self, prover: Prover, task: str, terms: Terms) -> Picture:
        """Look, or go round the loop of a task that learns."""
        job = self._job
        wish = None if job is None else job.wishes.get(task)
        if job is None or wish is None:
            return prover.look(task, terms, time.time())
        from upstack.application.loop import Loop, loop_of  # noqa: PLC0415 - most tasks learn nothing

        key = (wish, terms, job.loop, job.rights)
        known = self._loops.get(task)
        if known is None or known[0] != key:
            known = self._loops[task] = (key, loop_of(job.place, wish, terms, job.loop, job.rights, job.keystore))
        loop: Loop = known[1]
        return loop.turn(time.time())

    def _error(self, task: str, message: str) -> Word | None:
        """What is wrong is said once."""
        if self._failed.get(task) == message:
            return None
        self._failed[task] = message
        return Word(task, error=message)


def main() -> int:
    """Work until standard input ends."""
    os.nice(_NICE)
    worker = Worker()
    pause = 0.0
    told = None
    lines = b""
    while True:
        if select.select([sys.stdin], [], [], max(_TICK_S, pause))[0]:
            more = os.read(sys.stdin.fileno(), 1 << 20)
            if not more:
                return 0
            lines += more
            *whole, lines = lines.split(b"\n")
            if whole:
                worker.take(msgspec.json.decode(whole[-1], type=Job))
        began = time.monotonic()
        try:
            said = worker.turn()
            told = None
        except LedgerError as error:
            said = [] if error.message == told or error.code == LEDGER_EMPTY else [Word(error=error.message)]
            told = error.message
        for word in said:
            sys.stdout.buffer.write(msgspec.json.encode(word) + b"\n")
        sys.stdout.buffer.flush()
        pause = _SHARE * (time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
