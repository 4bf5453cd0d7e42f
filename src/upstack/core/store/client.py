"""The gateway's side of the ledger: gathers receipts into batches and hands them to the writer process.

One batch is under way at a time; whatever is finished meanwhile makes the next. A lone receipt never waits for others.
Under load the next batch waits for as many receipts as were there before, for at most a millisecond: at 16 connections
14 receipts share a commit instead of 8, and the writer's CPU falls by a quarter. All of it runs on the event loop's
thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

from upstack.core.errors import LedgerError
from upstack.core.store.base import Done
from upstack.core.store.frames import WHOLE_BATCH, Failures, frame
from upstack.core.store.link import WRITER_DIED, WriterLink
from upstack.core.store.places import shown
from upstack.core.store.reading import read_receipt
from upstack.core.store.rows import COLUMNS, NO_CONTENT, Content, Row, clean, to_outcome_row, to_receipt, to_row
from upstack.core.types import Outcome, Receipt

_BATCH_BYTES = 1024 * 1024
_ROW_BYTES = 1024  # what a row weighs in memory beside its long texts
_GATHER_S = 0.001  # the most that a batch is held back for company
_OPENING_S = 0.003  # the most that an opening waits for a batch to go: providers take longer to their first token
_FEW = 2  # receipts in a batch below which the next is not held back
_ENOUGH = 16  # receipts in a batch beyond which company saves little
_BACKOFF_S = 0.02
_BACKOFF_MOST_S = 2.0
_DEATHS_MOST = 5  # writers lost over the same batch before it is given up
_LOOK_S = 1.0  # between looks at a writer that fails or hangs
_SLOW_S = 5.0  # without an answer to a batch: the ledger is failing
_STUCK_S = 30.0  # the same: the writer is replaced
_STATE, _STREAM, _STATUS, _ERROR = (COLUMNS.index(name) for name in ("state", "stream", "status", "error"))


class _Batch:
    """Receipts that will share a commit."""

    __slots__ = ("contents", "dones", "opened", "openings", "outcomes", "rows", "size", "told")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.contents: list[Content | None] = []  # of each row
        self.dones: list[Done | None] = []  # of each row
        self.openings: list[Row] = []  # with request, subject and whether to encrypt at the end
        self.opened: list[Done | None] = []  # of each opening
        self.outcomes: list[Row] = []  # with comment, demonstration, subject and whether to encrypt at the end
        self.told: list[Done] = []  # of each outcome
        self.size = 0

    def frame(self) -> bytearray:
        """Make the message of it."""
        return frame((self.rows, self.contents, self.openings, self.outcomes))


class LedgerClient:
    """A ledger in a SQLite file, or in PostgreSQL by URL. See `Ledger` for what each method promises.

    `limit_bytes` bounds what waits to be written. `lock_wait` is how many seconds `start` waits for the writer of a
    gateway that has just ended. `door`: the Unix socket of a writer that several workers share, in place of one's own.
    `keystore` names the file of keys where it is not in its usual place.
    """

    __slots__ = (
        "_backlog",
        "_closing",
        "_deaths",
        "_door",
        "_drained",
        "_flight",
        "_limit",
        "_link",
        "_lock_wait",
        "_loop",
        "_next",
        "_owed",
        "_restart",
        "_sent_at",
        "_timer",
        "_wanted",
        "_watch",
        "dropped",
        "failing",
        "keystore",
        "place",
        "queue_bytes",
        "written",
    )

    def __init__(
        self,
        place: Path | str,
        *,
        limit_bytes: int = 64 * 1024 * 1024,
        lock_wait: float = 10.0,
        door: str | None = None,
        keystore: str | None = None,
    ) -> None:
        self.place = str(place)
        self.queue_bytes = self.written = self.dropped = 0
        self._limit = limit_bytes
        self._lock_wait = lock_wait
        self._door = door
        self.keystore = keystore
        self._loop: asyncio.AbstractEventLoop
        self._link: WriterLink | None = None
        self._next = _Batch()  # is being gathered
        self._backlog: deque[_Batch] = deque()  # full ones before it
        self._owed: list[_Batch] = []  # callers were refused, but providers paid: written once the ledger can again
        self._flight: _Batch | None = None
        self._wanted = 0  # receipts and openings at which the next batch goes; 0: not now, something is under way
        self._timer: asyncio.TimerHandle | None = None  # sends it anyway
        self._closing = False
        self._deaths = 0
        self._sent_at = 0.0  # when the batch under way was sent
        self._watch: asyncio.TimerHandle | None = None
        self.failing: str | None = None
        self._restart: asyncio.Task[None] | None = None
        self._drained: asyncio.Event | None = None

    @property
    def busy(self) -> bool:
        """Whether the queue is full."""
        return self.queue_bytes >= self._limit

    @property
    def ready(self) -> bool:
        """Whether a writer is connected."""
        return self._link is not None

    @property
    def chain(self) -> int | None:
        """The chain that the writer has, None while it is replaced."""
        return None if self._link is None else self._link.chain

    @property
    def writer(self) -> int | None:
        """The writer's process id, None while it is replaced."""
        return None if self._link is None else self._link.pid

    async def start(self) -> None:
        """Start the writer and wait until it is ready; openings left by a crash become truncated receipts."""
        self._loop = asyncio.get_running_loop()
        self._link = await self._connect(recover=True)
        self._watch = self._loop.call_later(_LOOK_S, self._look)
        self._flush()

    async def close(self, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - the bound is part of the promise
        """Write what waits, for at most `timeout` seconds, then stop the writer, within 5 more."""
        self._closing = True
        if self._watch is not None:
            self._watch.cancel()
        if self._link is None and self._restart is None:
            return
        self._drained = asyncio.Event()
        if self._flight is None and not self._next.size and not self._backlog:
            self._drained.set()
        try:
            await asyncio.wait_for(self._drained.wait(), timeout)
        except TimeoutError:
            self._give_up("the ledger's writer did not finish before the gateway closed")
        if self._restart is not None:
            self._restart.cancel()
            await asyncio.wait([self._restart])
        self._forget_owed()
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def append(self, receipt: Receipt, done: Done | None) -> None:
        """Record a finished receipt with the next batch."""
        if self._closing or (done is None and self.busy):
            self._drop(done, _closed())
            return
        try:
            row = to_row(receipt)
        except (OverflowError, ValueError) as error:
            self._drop(done, _unfit(str(error)))
            return
        request, answer = receipt.request, receipt.answer
        size = _ROW_BYTES + len(row[3]) + len(row[20])
        batch = self._next
        batch.rows.append(row)
        if request is None and answer is None:
            batch.contents.append(None)
        else:
            batch.contents.append((request, answer, receipt.subject, receipt.encrypted))
            size += (len(request) if request else 0) + (len(answer) if answer else 0)
        batch.dones.append(done)
        self._added(batch, size)

    def open(self, receipt: Receipt, done: Done | None) -> None:
        """Note a stream that begins, with the next batch."""
        if self._closing or (done is None and self.busy):
            self._later(done, _closed())  # only its final receipt will tell
            return
        try:
            row = to_row(receipt)
        except (OverflowError, ValueError) as error:
            self._later(done, _unfit(str(error)))
            return
        self._next.openings.append((*row, receipt.request, receipt.subject, receipt.encrypted))
        self._next.opened.append(done)
        if self._wanted == 1 and self._timer is None:  # alone it would go at once, and the receipt of another after it
            self._timer = self._loop.call_later(_OPENING_S, self._flush)
        self._added(self._next, _ROW_BYTES + len(row[3]) + (len(receipt.request) if receipt.request else 0))

    def tell(self, outcome: Outcome, done: Done) -> None:
        """Record an outcome, with the next batch."""
        if self._closing:
            self._later(done, _closed())
            return
        content = (outcome.comment, outcome.demonstration)
        self._next.outcomes.append((*to_outcome_row(outcome), *content, outcome.subject, outcome.encrypted))
        self._next.told.append(done)
        self._added(self._next, _ROW_BYTES + sum(len(part) for part in content if part is not None))

    async def get(self, receipt_id: str) -> Receipt | None:
        """Find a receipt: among those that wait, then in the file (in a thread)."""
        return self._waiting(receipt_id) or await asyncio.to_thread(read_receipt, self.place, receipt_id, self.keystore)

    def _added(self, batch: _Batch, size: int) -> None:
        batch.size += size
        self.queue_bytes += size
        full = batch.size > _BATCH_BYTES
        if full:
            self._backlog.append(batch)
            self._next = _Batch()
        if self._wanted and (
            full or len(batch.rows) + (self._wanted > 1) * len(batch.openings) + len(batch.outcomes) >= self._wanted
        ):
            self._wanted = 0
            self._loop.call_soon(self._flush)  # at the end of this tick, with all that it brings

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wanted = 0
        link = self._link
        if link is None or self._flight is not None:
            return
        if self._backlog:
            batch = self._backlog.popleft()
        elif self._next.size:
            batch, self._next = self._next, _Batch()
        else:
            self._wanted = 1
            if self._drained is not None:
                self._drained.set()
            return
        self._flight, self._sent_at = batch, self._loop.time()
        try:
            message = batch.frame()
        except (OverflowError, UnicodeEncodeError):
            self._clean(batch)
            message = batch.frame()
        link.send(message)

    def _on_answer(self, failures: Failures) -> None:
        batch, self._flight = self._flight, None
        if batch is None:
            return
        self._deaths = 0
        self.queue_bytes -= batch.size
        self._plan(len(batch.rows))
        if failures:
            self._report(batch, dict(failures))
            return
        self.failing = None
        self.written += len(batch.rows)
        if self._owed:
            self._backlog.extendleft(reversed(self._owed))
            self._owed.clear()
        for done in batch.opened:
            if done is not None:
                self._call(done, None)
        for done in batch.dones:
            if done is not None:
                self._call(done, None)
        for done in batch.told:
            self._call(done, None)

    def _plan(self, written: int) -> None:
        """Decide when the next batch goes, now that one of `written` receipts has been answered."""
        waiting = len(self._next.rows)
        if written < _FEW or waiting >= _ENOUGH or self._backlog or self._closing:
            self._loop.call_soon(self._flush)
        else:
            self._wanted = min(waiting + written, _ENOUGH)
            self._timer = self._loop.call_later(_GATHER_S, self._flush)

    def _report(self, batch: _Batch, reasons: dict[int, str]) -> None:
        """Tell whoever waits for this batch what became of it; one that failed as a whole is still owed."""
        whole = reasons.get(WHOLE_BATCH)
        self.failing = whole
        for done in batch.opened:
            if done is not None:
                self._call(done, None if whole is None else LedgerError(whole))
        for index, done in enumerate(batch.dones):
            reason = reasons.get(index, whole)
            if reason is None:
                self.written += 1
            elif whole is None:
                self.dropped += 1
            if done is not None:
                self._call(done, None if reason is None else LedgerError(reason))
        for index, done in enumerate(batch.told, len(batch.rows)):
            reason = reasons.get(index, whole)
            self._call(done, None if reason is None else LedgerError(reason))
        if whole is not None and batch.rows:
            self._owe(batch)

    def _owe(self, batch: _Batch) -> None:
        """Keep the receipts of a batch that could not be written, as what their callers saw, until it can be."""
        rows = [row if done is None else _refused(row) for row, done in zip(batch.rows, batch.dones, strict=True)]
        batch.rows, batch.dones, batch.openings, batch.opened = rows, [None] * len(rows), [], []
        batch.outcomes, batch.told = [], []  # whoever told them was refused, and tells them again
        self.queue_bytes += batch.size
        self._owed.append(batch)

    def _forget_owed(self) -> None:
        for batch in self._owed:
            self.queue_bytes -= batch.size
            self.dropped += len(batch.rows)
        self._owed.clear()

    def _call(self, done: Done, error: LedgerError | None) -> None:
        try:
            done(error)
        except Exception as fault:  # noqa: BLE001 - one caller's fault must not keep the others from their answers
            self._loop.call_exception_handler({"message": "a receipt's callback failed", "exception": fault})

    def _drop(self, done: Done | None, error: LedgerError) -> None:
        self.dropped += 1
        self._later(done, error)

    def _later(self, done: Done | None, error: LedgerError) -> None:
        if done is not None:
            self._loop.call_soon(done, error)

    def _look(self) -> None:
        """Now and then: notice a writer that hangs, and ask one that failed whether it can write again."""
        self._watch = self._loop.call_later(_LOOK_S, self._look)
        if self._flight is None:
            if self.failing is not None and self._link is not None:
                self._flight, self._sent_at = _Batch(), self._loop.time()
                self._link.send(_Batch().frame())
            return
        waited = self._loop.time() - self._sent_at
        if waited > _SLOW_S:
            self.failing = f"the ledger {shown(self.place)} has not answered for {waited:.0f} s; its disk may hang"
        if waited > _STUCK_S and self._link is not None:
            self._link.kill()

    def _clean(self, batch: _Batch) -> None:
        """Mend what msgpack cannot carry; a row beyond mending fails alone."""
        rows, contents, dones = batch.rows, batch.contents, batch.dones
        batch.rows, batch.contents, batch.dones = [], [], []
        for row, content, done in zip(rows, contents, dones, strict=True):
            mended = clean(row)
            if _fits(mended):
                batch.rows.append(mended)
                batch.contents.append(content)
                batch.dones.append(done)
            else:
                self._drop(done, _unfit("a number is too large"))
        openings, opened = batch.openings, batch.opened
        batch.openings, batch.opened = [], []
        for row, done in zip(openings, opened, strict=True):
            mended = clean(row)
            if _fits(mended):
                batch.openings.append(mended)
                batch.opened.append(done)
            else:
                self._later(done, _unfit("a number is too large"))

    def _waiting(self, receipt_id: str) -> Receipt | None:
        batches = [*self._owed, *self._backlog, self._next]
        if self._flight is not None:
            batches.append(self._flight)
        for batch in batches:
            for row, content in zip(batch.rows, batch.contents, strict=True):
                if row[0] == receipt_id:
                    return to_receipt(row, content or NO_CONTENT)
        return next(
            (
                to_receipt(row[:-3], (row[-3], None, row[-2], row[-1]))
                for batch in batches
                for row in batch.openings
                if row[0] == receipt_id
            ),
            None,
        )

    async def _connect(self, *, recover: bool) -> WriterLink:
        link = WriterLink(self._on_answer, self._on_lost)
        if self._door is None:
            await link.start(self.place, self._lock_wait, recover=recover, keystore=self.keystore)
        else:
            await link.connect(self._door)
        return link

    def _on_lost(self) -> None:
        """The writer died: start another and send it again what was not acknowledged."""
        dead, self._link, self._wanted = self._link, None, 0
        self._deaths += 1
        batch, self._flight = self._flight, None
        if batch is not None and self._deaths >= _DEATHS_MOST:
            self.queue_bytes -= batch.size
            self._report(batch, {WHOLE_BATCH: f"the ledger's writer died {self._deaths} times over this receipt"})
            self._deaths = 0
            self._forget_owed()  # trying that batch again would kill the next
        elif batch is not None:
            self._backlog.appendleft(batch)  # receipts that were written before it died are known by their id
        if dead is not None:
            self._restart = self._loop.create_task(self._reconnect(dead))

    async def _reconnect(self, dead: WriterLink) -> None:
        await dead.close()
        delay = _BACKOFF_S
        while True:
            await asyncio.sleep(delay)
            delay = min(2 * delay, _BACKOFF_MOST_S)
            try:
                link = await self._connect(recover=False)
            except LedgerError as error:
                self._deaths += 1
                if error.code != WRITER_DIED or self._deaths >= _DEATHS_MOST:
                    self._give_up(error.message)
            else:
                break
        self._link, self._restart = link, None
        self._flush()

    def _give_up(self, reason: str) -> None:
        """Fail everything that waits, so that no caller waits for a ledger that cannot be opened."""
        self.failing = reason
        batches = [*self._backlog, self._next]
        if self._flight is not None:
            batches.append(self._flight)
        self._flight, self._next = None, _Batch()
        self._backlog.clear()
        for batch in batches:
            self.queue_bytes -= batch.size
            self._report(batch, {WHOLE_BATCH: reason})


def _refused(row: Row) -> Row:
    """A receipt as its caller saw it end: the ledger failed when the answer was whole."""
    if row[_STATE] != "answered":
        return row
    values = list(row)
    if values[_STREAM]:
        values[_STATE] = "truncated"
    else:
        values[_STATE], values[_STATUS] = "failed", LedgerError.status
    values[_ERROR] = LedgerError.code
    return tuple(values)


def _fits(row: Row) -> bool:
    try:
        frame(([row], [], [], []))
    except OverflowError:
        return False
    return True


def _closed() -> LedgerError:
    return LedgerError("the ledger is closed", code="ledger_closed")


def _unfit(reason: str) -> LedgerError:
    return LedgerError(f"a receipt cannot be recorded: {reason}", code="ledger_row")
