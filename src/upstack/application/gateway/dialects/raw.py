"""JSON members that are passed on or looked at later, kept as their bytes."""

from __future__ import annotations

import msgspec

NOTHING = msgspec.Raw()


def told(raw: msgspec.Raw) -> bool:
    """Say whether a member is there and is more than `null`, `{}` or an empty string."""
    return len(raw) > len(b"null")
