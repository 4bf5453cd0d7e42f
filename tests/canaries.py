"""Secrets that can be recognised wherever they turn up, and the search for them in every byte that the tests wrote.

Every provider of `tests.gateway.serving` is called with CANARY; other planted secrets begin as it does. Virtual keys
are recognised by their shape. A file that a test writes a secret into on purpose is called `*.secret`.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path

CANARY = "sk-canary-of-every-provider"

_SECRET = re.compile(rb"sk-canary-|sk-upstack-[A-Za-z0-9_-]{43}")


def files_with_secrets(folder: Path) -> list[Path]:
    """The files below a folder that hold a planted secret or a virtual key."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.suffix != ".secret" and _holds_one(path)
    ]


def _holds_one(path: Path) -> bool:
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _SECRET.search(data) is not None
