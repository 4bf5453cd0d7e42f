"""Files of the ledger on disk: which one stands where, and why one cannot be opened."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit


def place_of(file: str | int) -> tuple[int, int] | None:
    """Which file stands there now, or is behind a descriptor: its device and inode, or None."""
    try:
        found = os.stat(file)  # noqa: PTH116 - a descriptor too
    except OSError:
        return None
    return found.st_dev, found.st_ino


def make(path: str) -> None:
    """Make the file, readable by its owner only; SQLite gives its companions (-wal, -shm) the same mode."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def cannot_open(path: str, error: Exception) -> str:
    """Say why a file could not be opened or made, and the remedy."""
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        return f"the ledger {path} cannot be made: there is no folder {folder}; make it, or change server.ledger"
    if Path(path).is_dir():
        return f"the ledger {path} is a folder; name a file in server.ledger"
    if getattr(error, "errno", None) == errno.ENOSPC:
        return f"the ledger {path} cannot be made: the disk is full; make room"
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
        return f"the ledger {path} is not writable for this user; change its permissions, or server.ledger"
    reason = getattr(error, "strerror", None) or error
    return f"the ledger {path} cannot be opened: {reason}; check its folder, or change server.ledger"


def is_postgres(place: str) -> bool:
    """Whether a ledger is a PostgreSQL database by URL, and not a file."""
    return place.startswith(("postgresql://", "postgres://"))


def keystore_of(place: str, given: str | None = None) -> str:
    """Where the keystore of a ledger is: `given`, else beside its file, else in the working folder."""
    if given is not None:
        return given
    return "upstack.keys" if is_postgres(place) else f"{os.path.realpath(place)}.keys"


def shown(place: str) -> str:
    """A ledger's place as it may be shown: of a URL the user, the host and the database."""
    if not is_postgres(place):
        return place
    user, _, rest = place.partition("://")[2].rpartition("@")
    name = user.partition(":")[0]
    return f"postgresql://{f'{name}@' if name else ''}{rest.partition('?')[0]}"


def hushed(words: str, place: str) -> str:
    """Words about a ledger, without the password that its place may hold."""
    parts = urlsplit(place) if is_postgres(place) else None
    query = parse_qs(parts.query).get("password", []) if parts is not None else []
    typed = place.partition("://")[2].rpartition("@")[0].partition(":")[2]
    for secret in filter(None, [typed, unquote(typed), *query]):
        words = words.replace(secret, "***")
    return words
