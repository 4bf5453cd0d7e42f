"""Retention as a process: `python -m upstack.core.store.keeping`, the job as a line of JSON on standard input.

It signs a checkpoint a day and removes what is too old, and ends early where standard input does: the gateway has gone.
A process of its own, as it may take minutes and loads what the gateway and its writer do without. It answers with one
line of JSON: what was removed, or why nothing was.
"""

from __future__ import annotations

import os
import select
import sys
import time

import msgspec

from upstack.core.errors import LedgerError
from upstack.core.store.custody import custody, last_checkpoint, make_checkpoints
from upstack.core.store.retention import Retention, prune
from upstack.core.store.rows import moment
from upstack.core.types import DAY_S

_NICE = 10  # whoever answers requests comes first


class Job(msgspec.Struct, frozen=True):
    """Which ledger, and how long what is kept."""

    place: str
    keystore: str | None
    retention: Retention


class Done(msgspec.Struct, frozen=True):
    """What was removed; or what went wrong."""

    rows: int = 0
    contents: int = 0
    error: str | None = None


def keep(job: Job) -> Done:
    """Do the job."""
    now = time.time()
    try:
        with custody(job.place, job.keystore) as (_, signer):
            if last_checkpoint(job.place) < moment(now - DAY_S):
                make_checkpoints(job.place, signer)
            pruned = prune(job.place, signer, job.retention, now, _gateway_is_there)
    except LedgerError as error:
        return Done(error=error.message)
    return Done(pruned.rows, pruned.contents)


def _gateway_is_there() -> bool:
    return not select.select([sys.stdin], [], [], 0)[0]  # nothing comes but the end


def main() -> int:
    """Read the job, do it, say what came of it."""
    os.nice(_NICE)
    done = keep(msgspec.json.decode(sys.stdin.buffer.readline(), type=Job))
    print(msgspec.json.encode(done).decode())  # noqa: T201 - the gateway reads it
    return 0 if done.error is None else 1


if __name__ == "__main__":
    sys.exit(main())
