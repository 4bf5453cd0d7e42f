"""The ledger's writer for several workers: what they have sent by the time a commit is free shares that commit.

Each worker has a connection, speaks as over the pair of a single gateway, and has one batch under way. When a worker
dies, the streams that it had begun are closed as truncated at once.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from itertools import chain

from upstack.core.errors import LedgerError
from upstack.core.store.frames import ALL_WRITTEN, WHOLE_BATCH, Batch, decode_batch, frame
from upstack.core.store.inbox import Inbox
from upstack.core.store.recording import Recorder
from upstack.core.store.rows import COLUMNS, is_opened

_ID = COLUMNS.index("id")


class _Worker:
    """One worker's connection, and the streams that it has begun."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.inbox = Inbox(connection)
        self.begun: set[str] = set()

    def say(self, message: bytes | bytearray) -> None:
        """Send an answer; a worker that is gone needs none."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.sendall(message)


class Hub:
    """Serves workers that connect to `listener` until `control` ends and all of them are gone."""

    def __init__(self, control: socket.socket, listener: socket.socket, ledger: Recorder) -> None:
        self._ledger = ledger
        self._listener: socket.socket | None = listener
        self._looked_at = selectors.DefaultSelector()
        self._looked_at.register(control, selectors.EVENT_READ, None)
        self._looked_at.register(listener, selectors.EVENT_READ, None)
        self._workers = 0

    def serve(self) -> None:
        """Record batch after batch."""
        while self._listener is not None or self._workers:
            ready = [(key.fileobj, key.data) for key, _ in self._looked_at.select()]
            batches: list[tuple[_Worker, Batch]] = []
            for connection, worker in ready:
                if isinstance(worker, _Worker):
                    message = worker.inbox.read()
                    if message is None:
                        self._forget(worker)
                    else:
                        batches.append((worker, decode_batch(message)))
                elif connection is self._listener:
                    self._welcome()
                else:  # the supervisor is gone: nobody will connect any more
                    self._looked_at.unregister(connection)
                    self._close_door()
            if batches:
                self._record(batches)

    def _welcome(self) -> None:
        assert self._listener is not None  # noqa: S101 - it is looked at
        connection, _ = self._listener.accept()
        worker = _Worker(connection)
        self._looked_at.register(connection, selectors.EVENT_READ, worker)
        self._workers += 1
        worker.say(frame(self._ledger.chain))

    def _record(self, batches: list[tuple[_Worker, Batch]]) -> None:
        """Make several batches one commit, and tell each worker of its own."""
        whole = batches[0][1] if len(batches) == 1 else _joined([batch for _, batch in batches])
        failures = dict(self._ledger.record(whole))
        first_row, first_outcome = 0, len(whole[0])
        for worker, batch in batches:
            end_row, end_outcome = first_row + len(batch[0]), first_outcome + len(batch[3])
            places = [WHOLE_BATCH, *range(first_row, end_row), *range(first_outcome, end_outcome)] if failures else []
            first_row, first_outcome = end_row, end_outcome
            own = [(index, failures[place]) for index, place in enumerate(places, WHOLE_BATCH) if place in failures]
            worker.begun.update(opening[_ID] for opening in batch[2])
            worker.begun.difference_update(row[_ID] for row in batch[0] if is_opened(row))
            worker.say(frame(own) if own else ALL_WRITTEN)

    def _forget(self, worker: _Worker) -> None:
        self._looked_at.unregister(worker.connection)
        worker.connection.close()
        self._workers -= 1
        if worker.begun:
            with contextlib.suppress(LedgerError):  # they are closed when the next writer starts
                self._ledger.abandon(sorted(worker.begun))

    def _close_door(self) -> None:
        if self._listener is not None:
            self._looked_at.unregister(self._listener)
            self._listener.close()
            self._listener = None


def _joined(batches: list[Batch]) -> Batch:
    rows, contents, openings, outcomes = zip(*batches, strict=True)
    return list(chain(*rows)), list(chain(*contents)), list(chain(*openings)), list(chain(*outcomes))
