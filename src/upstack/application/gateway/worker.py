"""One of several processes that serve: `python -m upstack.application.gateway.worker`, started by `workers`.

What it is to do comes as JSON on standard input. On standard output it says, in one line of JSON, where it listens, or
why it cannot.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from upstack.application.gateway.server import run
from upstack.application.gateway.setup import Listening, Options
from upstack.application.gateway.together import Place
from upstack.core.errors import UpstackError


class Job(msgspec.Struct, frozen=True):
    """What a worker is told."""

    options: Options
    place: Place


def job_bytes(job: Job) -> bytes:
    """Write a job as `main` reads it."""
    return msgspec.json.encode(job, enc_hook=str)


class Word(msgspec.Struct, frozen=True):
    """What it says: one of both."""

    listening: Listening | None = None
    error: str | None = None


def main() -> int:
    """Serve until told to stop; 1 where it cannot start."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job, dec_hook=lambda _, value: Path(value))
    try:
        run(job.options, lambda listening: _say(Word(listening=listening)), job.place)
    except UpstackError as error:
        _say(Word(error=error.message))
        return 1
    return 0


def _say(word: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # the supervisor is gone, and the leash ends this process too
        os.write(sys.stdout.fileno(), msgspec.json.encode(word) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
