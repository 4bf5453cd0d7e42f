"""Receipt ids: unique without asking anybody, and in order of time so that an index grows at its right edge."""

from __future__ import annotations

import os


def first_id(seconds: float) -> str:
    """What sorts before every id made at `seconds` (Unix time) or later, and behind all earlier ones."""
    return f"rcpt_{int(seconds * 1000):012x}"


def id_of(seconds: float, digest: bytes) -> str:
    """The id of what another system recorded at `seconds`: the same for the same digest of it (8 bytes count)."""
    return first_id(max(0.0, seconds)) + digest[:8].hex()


def outcome_id(receipt_id: str) -> str:
    """The id of an outcome, made of one that a receipt could have had."""
    return "otcm" + receipt_id.removeprefix("rcpt")


class ReceiptIds:
    """Makes ids: "rcpt_", milliseconds (12 hex), a random salt of this maker (8 hex), a counter (8 hex).

    Two makers may share a process; after a fork the child needs one of its own.
    """

    __slots__ = ("_count", "_salt")

    def __init__(self) -> None:
        self._salt = int.from_bytes(os.urandom(4)) << 32
        self._count = 0

    def __call__(self, now: float) -> str:
        """Make the next id; `now` in Unix seconds."""
        self._count = count = (self._count + 1) & 0xFFFFFFFF
        # The quickest way to hexadecimal digits that Python has: 0.4 us.
        return "rcpt_" + (int(now * 1000) << 64 | self._salt | count).to_bytes(14).hex()
