"""One writer a ledger: a lock on a file beside it, which ends with the process that holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

from upstack.core.errors import LedgerError
from upstack.core.store.places import cannot_open, place_of

_POLL_S = 0.02


class Lock:
    """The right to write the ledger at `path`, by whatever link it is named."""

    def __init__(self, path: str, wait: float) -> None:
        """Take it, waiting up to `wait` seconds for a writer that is finishing; LedgerError when another keeps it."""
        self._path = path
        self._file = f"{os.path.realpath(path)}.lock"
        self._descriptor = self._take(wait)
        self._place = place_of(self._descriptor)

    def keep(self) -> None:
        """Take it again if its file was deleted, before anybody else does; LedgerError where somebody has."""
        if place_of(self._file) != self._place:
            descriptor = self._take(0.0)
            os.close(self._descriptor)
            self._descriptor, self._place = descriptor, place_of(descriptor)

    def release(self) -> None:
        """Give it back; a process that ends does so by itself."""
        os.close(self._descriptor)

    def _take(self, wait: float) -> int:
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LedgerError(cannot_open(self._path, error)) from None
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
                    os.close(descriptor)
                    raise LedgerError(
                        f"the ledger {self._path} is in use by another gateway (its writer is process {holder}); "
                        "stop that one, or give this one a file of its own in server.ledger"
                    ) from None
                time.sleep(_POLL_S)
            else:
                with contextlib.suppress(OSError):  # a full disk; the lock holds, only the hint is missing
                    os.truncate(descriptor, 0)
                    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
                return descriptor
