"""One line of the doctor's: what was found, how bad it is, what to do."""

from __future__ import annotations

from typing import Literal

import msgspec

Level = Literal["ok", "note", "problem"]  # note: should be known; problem: does not work


class Finding(msgspec.Struct, frozen=True):
    """`topic` is one word; `text` and `remedy` never hold a secret. An "ok" has no remedy."""

    level: Level
    topic: str
    text: str
    remedy: str = ""
