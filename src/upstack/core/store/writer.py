"""The process that writes the ledger: `python -m upstack.core.store.writer FD WAIT RECOVER [LISTENER]`.

A process and not a thread, so that it never holds up the gateway's event loop. It reads batches from the socket FD and
ends when that ends: after the gateway is gone, killed or not, it still writes what had been sent. Signals from a
terminal or a service manager reach it too, hence it ignores them. Where the ledger is comes first from the socket, as
a command line can be seen by everybody on the machine, and a URL may hold a password. With LISTENER, the descriptor of
a listening Unix socket, the batches come from workers that connect to it (`hub`), and FD only says when to end.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import socket
import sys

from upstack.core.errors import LedgerError
from upstack.core.store.frames import ALL_WRITTEN, decode_batch, decode_place, frame
from upstack.core.store.inbox import Inbox
from upstack.core.store.places import is_postgres
from upstack.core.store.recording import Recorder


def serve(connection: socket.socket, inbox: Inbox, ledger: Recorder) -> None:
    """Record batch after batch until the gateway has gone."""
    while (message := inbox.read()) is not None:
        failures = ledger.record(decode_batch(message))
        _say(connection, frame(failures) if failures else ALL_WRITTEN)


def _say(connection: socket.socket, message: bytes | bytearray) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the gateway is gone; its batches are not
        connection.sendall(message)


def open_ledger(place: str, wait: float, keystore: str | None = None) -> Recorder:
    """Open the ledger at `place` for writing, a file within `wait` seconds; what the other kind needs is not loaded."""
    if is_postgres(place):
        from upstack.core.store.postgres import PostgresLedger  # noqa: PLC0415

        return PostgresLedger(place, keystore)
    from upstack.core.store.lock import Lock  # noqa: PLC0415
    from upstack.core.store.sqlite import SqliteLedger  # noqa: PLC0415

    return SqliteLedger(place, Lock(place, wait), keystore)


def main(descriptor: str, wait: str, recover: str, listener: str | None = None) -> int:
    """Run the writer; the arguments are those of the command line."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    connection = socket.socket(fileno=int(descriptor))
    inbox = Inbox(connection)
    said = inbox.read()
    if said is None:
        return 1
    place, keystore = decode_place(said)
    try:
        ledger = open_ledger(place, float(wait), keystore)
        if recover == "1":
            ledger.recover()
    except LedgerError as error:
        _say(connection, frame(error.message))
        return 1
    _say(connection, frame(ledger.chain))
    gc.disable()  # a batch makes many objects and no cycles
    if listener is None:
        serve(connection, inbox, ledger)
    else:
        from upstack.core.store.hub import Hub  # noqa: PLC0415

        Hub(connection, socket.socket(fileno=int(listener)), ledger).serve()
    for _ in range(2):  # the first try may find that a database was restarted meanwhile
        with contextlib.suppress(LedgerError):  # else the next writer does it
            ledger.recover()  # whoever began a stream is gone
            break
    ledger.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
