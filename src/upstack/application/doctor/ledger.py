"""The ledger as the doctor sees it: there, writable, with room to grow, when last written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from upstack.application.doctor.finding import Finding
from upstack.core.config import ServerConfig, ledger_place
from upstack.core.errors import ConfigError, LedgerError
from upstack.core.store.places import is_postgres, shown
from upstack.core.store.reading import LEDGER_EMPTY, list_receipts

_TOPIC = "ledger"
_LOW = 1024**3  # bytes free below which it is a note
_LOWEST = 100 * 1024**2  # and below which it is a problem


def ledger(server: ServerConfig) -> Iterator[Finding]:
    """Look at the file and its folder; nothing is written."""
    if server.receipts == "off":
        yield Finding("note", _TOPIC, "receipts are off: nothing is recorded", 'set server.receipts = "required"')
        return
    try:
        place = ledger_place(server.ledger)
    except ConfigError as error:
        yield Finding("problem", _TOPIC, error.message)
        return
    if is_postgres(place):
        yield _last(place)
        return
    path = Path(place)
    folder = path.absolute().parent
    if not folder.is_dir():
        yield Finding("problem", _TOPIC, f"{folder} is no folder", "make it, or name another file in server.ledger")
        return
    if not os.access(folder, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
        text = f"{path} cannot be written by this user"
        yield Finding("problem", _TOPIC, text, "mend the rights of file and folder, or name another in server.ledger")
    elif not path.exists():
        yield Finding("ok", _TOPIC, f"{path} will be made when the gateway first starts")
    if path.exists():
        yield _last(place)
    free = shutil.disk_usage(folder).free
    room = f"{free / 1024**3:.1f} GB free on its disk"
    if free < _LOW:
        remedy = "make room: with a full disk nothing is answered"
        yield Finding("problem" if free < _LOWEST else "note", _TOPIC, room, remedy)
    else:
        yield Finding("ok", _TOPIC, room)


def _last(place: str) -> Finding:
    try:
        newest = list_receipts(place, 1)
    except LedgerError as error:
        return Finding("note" if error.code == LEDGER_EMPTY else "problem", _TOPIC, error.message)
    if not newest:
        return Finding("ok", _TOPIC, f"{shown(place)} is there, and has no receipts yet")
    when = datetime.fromtimestamp(newest[0].created_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Finding("ok", _TOPIC, f"{shown(place)}, last receipt {when}: {newest[0].id}")
