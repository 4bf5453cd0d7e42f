"""What a ledger does with a batch of receipts and outcomes, in any database: chain them, insert them, close openings.

One transaction a batch. It imports little: the writer's memory and start are counted.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from upstack.core.store.base import OUTCOME_KNOWN
from upstack.core.store.chain import CHAIN_ROWS, Head, Kept, seal
from upstack.core.store.frames import Batch, Failures
from upstack.core.store.rows import COLUMNS, OUTCOME_COLUMNS, OUTCOME_MARK, Content, is_opened
from upstack.core.store.spending import Tally, upsert

if TYPE_CHECKING:
    from upstack.core.store.vault import Vault

_MARK_S = 1.0  # between two looks of the table of chains at where its chain ends: in each commit they cost a third

_NAMES = ", ".join(COLUMNS)
_COUNT = len(COLUMNS)
_ID, _STATE, _ERROR = (COLUMNS.index(name) for name in ("id", "state", "error"))
_SUBJECT, _ENCRYPTED = _COUNT + 1, _COUNT + 2  # of an opening


class Statements:
    """The SQL of the hot path, as both databases understand it; `mark` stands for a value."""

    def __init__(self, mark: str) -> None:
        def marks(count: int) -> str:
            return ", ".join([mark] * count)

        self.insert = f"INSERT INTO receipts (seq, {_NAMES}, commitment, hash) VALUES ({marks(len(COLUMNS) + 3)})"
        self.insert_new = self.insert + " ON CONFLICT (id) DO NOTHING"
        self.insert_content = (
            f"INSERT INTO contents (receipt_seq, request, answer, subject, cipher_key, salt) VALUES ({marks(6)})"
        )
        self.add_spend = upsert(mark)
        told = ", ".join(OUTCOME_COLUMNS)
        self.insert_outcome = (
            f"INSERT INTO outcomes (seq, {told}, commitment, hash) VALUES ({marks(len(OUTCOME_COLUMNS) + 3)})"
            " ON CONFLICT DO NOTHING"
        )
        self.insert_outcome_content = (
            "INSERT INTO outcome_contents (outcome_seq, comment, demonstration, subject, cipher_key, salt)"
            f" VALUES ({marks(6)})"
        )
        self.outcome = f"SELECT 1 FROM outcomes WHERE id = {mark}"
        beside = ("request", "subject", "cipher_key", "chain")
        replaced = ", ".join(f"{name} = excluded.{name}" for name in (*COLUMNS[1:], *beside))
        self.insert_opening = (
            f"INSERT INTO openings ({_NAMES}, {', '.join(beside)}) VALUES ({marks(len(COLUMNS) + len(beside))})"
            f" ON CONFLICT (id) DO UPDATE SET {replaced}"
        )
        self.delete_opening = f"DELETE FROM openings WHERE id = {mark}"
        kept = "request, subject, cipher_key"
        here = f"chain = {mark} AND id > {mark}"
        self.encrypted = "SELECT cipher_key FROM contents WHERE cipher_key IS NOT NULL LIMIT 1"
        self.encrypted_of = f"SELECT cipher_key FROM contents WHERE subject = {mark} AND cipher_key IS NOT NULL LIMIT 1"
        self.hold_contents: str | None = None  # what keeps an erasure waiting until the transaction has ended
        self.left_open = f"SELECT {_NAMES}, {kept} FROM openings WHERE {here} ORDER BY id LIMIT 20"
        self.opening = f"SELECT {_NAMES}, {kept} FROM openings WHERE id = {mark}"
        self.head = f"SELECT head_seq, head_hash FROM chains WHERE id = {mark}"
        newest = "SELECT seq, hash FROM {0} WHERE seq = (SELECT max(seq) FROM {0} WHERE seq BETWEEN {1} AND {1})"
        both = " UNION ALL ".join(newest.format(table, mark) for table in ("receipts", "outcomes"))
        self.newest = f"{both} ORDER BY 1 DESC LIMIT 1"
        self.move_head = f"UPDATE chains SET head_seq = {mark}, head_hash = {mark} WHERE id = {mark}"
        self.new_chain = (
            "INSERT INTO chains (id, created_at, host, genesis, head_seq, head_hash)" + f" VALUES ({marks(6)})"
        )


class Recorder(ABC):
    """An open ledger, for the one process that writes its chain."""

    statements: Statements
    refusals: tuple[type[Exception], ...]  # what the database may raise over one row

    def __init__(self, keystore: str) -> None:
        """`keystore` names the file of keys, which is opened when there is something to encrypt."""
        self.chain = 0
        self.head = Head(0, "")  # of the chain, as it was last committed
        self._keystore = keystore
        self._vault: Vault | None = None
        self._marked = 0.0  # when the table of chains was last told (monotonic)

    @abstractmethod
    def record(self, batch: Batch) -> Failures:
        """Make a batch durable in one commit, and return the rows that could not be. A receipt known by id is kept.

        An empty batch writes all the same, to find out whether that is possible.
        """

    @abstractmethod
    def recover(self) -> int:
        """Turn the openings that gateways left that are gone into truncated receipts, and return how many there were.

        LedgerError where that cannot be written.
        """

    @abstractmethod
    def abandon(self, receipt_ids: list[str]) -> None:
        """Turn openings whose gateway has died into truncated receipts; LedgerError where that cannot be written."""

    @abstractmethod
    def close(self) -> None:
        """Let go; what is committed stays."""

    @abstractmethod
    def of_a_row(self, error: Exception) -> bool:
        """Whether a refusal is about one row's values, and not about the ledger."""

    @abstractmethod
    def many(self, database: Any, statement: str, rows: list[Any]) -> None:
        """Execute a statement for each row."""

    @abstractmethod
    def stored(self, content: bytes | str | None) -> bytes | str | None:
        """Turn a content into what is bound."""

    def find_head(self, database: Any) -> None:
        """Go on where the chain ends: its newest row, or what the table of chains knows of a later one."""
        self.head = Head(*database.execute(self.statements.head, (self.chain,)).fetchone())
        behind = (self.head.seq + 1, (self.chain + 1) * CHAIN_ROWS - 1)
        newest = database.execute(self.statements.newest, (*behind, *behind)).fetchone()
        if newest is not None:
            self.head = Head(*newest)

    def mark_head(self, database: Any) -> None:
        """Tell the table of chains where the chain ends, so that rows missing at its end are missed."""
        database.execute(self.statements.move_head, (self.head.seq, self.head.hash, self.chain))

    def write(self, database: Any, batch: Batch, *, singly: bool = False) -> tuple[Head, Failures]:
        """Write a batch within the transaction that is open: the head once it is committed, and the rows that failed.

        At first as a whole; where that raises over one of its rows, the caller comes again, with `singly`.
        """
        rows, contents, openings, outcomes = batch
        subjects = {content[2] for content in contents if content is not None and content[3]}
        subjects |= {row[_SUBJECT] for row in openings if row[_ENCRYPTED]}
        subjects |= {row[-2] for row in outcomes if row[-1]}
        if subjects:
            self._unlock(database, subjects)
        kept = [
            None if content is None else self.kept(row[_ID], content)
            for row, content in zip(rows, contents, strict=True)
        ]
        head, failures = self._chain_on(database, rows, kept, singly=singly)
        failed = {index for index, _ in failures}
        if outcomes:
            head, refused = self._tell_each(database, head, outcomes)
            failures += [(len(rows) + index, reason) for index, reason in refused]
        now = time.monotonic()
        if now > self._marked + _MARK_S:
            self._marked = now
            database.execute(self.statements.move_head, (head.seq, head.hash, self.chain))
        ended = {row[_ID] for index, row in enumerate(rows) if is_opened(row) and index not in failed}
        begun = [self._opening(row) for row in openings if row[_ID] not in ended]
        if begun and singly:
            self._note_each(database, begun)
        elif begun:
            self.many(database, self.statements.insert_opening, begun)
        if ended:
            self.many(database, self.statements.delete_opening, [(receipt_id,) for receipt_id in ended])
        return head, failures

    def close_openings(self, database: Any, chain: int, after: str) -> tuple[Head, int, str]:
        """Turn up to 20 openings of a chain with ids above `after` into receipts: the new head, how many, the last id.

        The receipts go into our own chain.
        """
        left = database.execute(self.statements.left_open, (chain, after)).fetchall()
        return self._close(database, left), len(left), left[-1][_ID] if left else after

    def close_these(self, database: Any, receipt_ids: list[str]) -> Head:
        """Turn those of the openings that are still there into receipts: the new head."""
        left = [row for each in receipt_ids for row in database.execute(self.statements.opening, (each,)).fetchall()]
        return self._close(database, left)

    def _close(self, database: Any, left: list[Any]) -> Head:
        rows = [_truncated(row[:_COUNT]) for row in left]
        kept = [_left(*row[_COUNT:]) for row in left]
        head, _ = self._chain_on(database, rows, kept, singly=True)
        self.many(database, self.statements.delete_opening, [(row[_ID],) for row in rows])
        return head

    def kept(self, owner: str, content: Content, fields: tuple[str, str] = ("request", "answer")) -> Kept:
        """Make of a content of the receipt or outcome with the id `owner` what is stored.

        Where it is to be encrypted, the batch's subjects were said to `_unlock`.
        """
        request, answer, subject, encrypted = content
        if not encrypted or self._vault is None or (request is None and answer is None):
            return request, answer, subject, None
        sealed: list[bytes | None] = []
        cipher_key = None
        for part, field in zip((request, answer), fields, strict=True):
            if part is None:
                sealed.append(None)
            else:
                stored, cipher_key = self._vault.encrypt(subject, part, owner, field)
                sealed.append(stored)
        return sealed[0], sealed[1], subject, cipher_key

    def _unlock(self, database: Any, subjects: set[str | None]) -> None:
        """Have the keys at hand under which contents of these subjects are encrypted; LedgerError where that fails."""
        if self._vault is None:
            from upstack.core.store.vault import Vault  # noqa: PLC0415 - most ledgers need none

            self._vault = Vault(self._keystore)
        if self.statements.hold_contents is not None:
            database.execute(self.statements.hold_contents)

        def elsewhere(subject: str | None) -> str | None:
            if subject is None:
                row = database.execute(self.statements.encrypted).fetchone()
            else:
                row = database.execute(self.statements.encrypted_of, (subject,)).fetchone()
            return None if row is None else str(row[0])

        self._vault.ready(subjects, elsewhere)

    def _opening(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        request, subject, encrypted = row[_COUNT:]
        request, _, subject, cipher_key = self.kept(row[_ID], (request, None, subject, encrypted))
        return (*row[:_COUNT], self.stored(request), subject, cipher_key, self.chain)

    def _chain_on(
        self, database: Any, rows: list[Any], contents: list[Kept | None], *, singly: bool
    ) -> tuple[Head, Failures]:
        """Put receipts at the end of the chain and into the sums of spend."""
        if not rows:
            return self.head, []
        tally = Tally(self.chain)
        failures: Failures = []
        if singly:
            head, failures = self._insert_each(database, rows, contents, tally)
        else:
            head, sealed, kept = seal(self.head, rows, contents)
            self.many(database, self.statements.insert, sealed)
            if kept:
                self.many(database, self.statements.insert_content, [self._bound(*each) for each in kept])
            for row in rows:
                tally.add(row)
        self.many(database, self.statements.add_spend, tally.rows())
        return head, failures

    def _bound(
        self,
        seq: int,
        request: bytes | None,
        answer: bytes | None,
        *rest: Any,
    ) -> tuple[Any, ...]:
        return (seq, self.stored(request), self.stored(answer), *rest)

    def _insert_each(
        self, database: Any, rows: list[Any], contents: list[Kept | None], tally: Tally
    ) -> tuple[Head, Failures]:
        """Insert row by row, so that one that is refused or known does not take the others with it."""
        head = self.head
        failures: Failures = []
        for index, (row, content) in enumerate(zip(rows, contents, strict=True)):
            with self._apart(database, index, failures):
                after, (sealed,), kept = seal(head, [row], [content])
                if database.execute(self.statements.insert_new, sealed).rowcount == 1:
                    for each in kept:
                        database.execute(self.statements.insert_content, self._bound(*each))
                    head = after
                    tally.add(row)
        return head, failures

    def _tell_each(self, database: Any, head: Head, outcomes: list[Any]) -> tuple[Head, Failures]:
        """Put outcomes at the end of the chain. One that is there already is kept; another's idempotency key is not."""
        failures: Failures = []
        for index, row in enumerate(outcomes):
            values, content = row[: len(OUTCOME_COLUMNS)], row[len(OUTCOME_COLUMNS) :]
            kept = None
            if content[0] is not None or content[1] is not None:
                kept = self.kept(row[_ID], content, ("comment", "demonstration"))
            after, (sealed,), apart = seal(head, [(*OUTCOME_MARK, *values)], [kept])
            seq, _, *rest = sealed
            with self._apart(database, index, failures):
                if database.execute(self.statements.insert_outcome, (seq, *rest)).rowcount == 1:
                    for each in apart:
                        database.execute(self.statements.insert_outcome_content, self._bound(*each))
                    head = after
                elif database.execute(self.statements.outcome, (row[_ID],)).fetchone() is None:
                    failures.append((index, OUTCOME_KNOWN))
        return head, failures

    def _note_each(self, database: Any, openings: list[Any]) -> None:
        """Note opening by opening; one that is refused leaves it to its receipt to tell."""
        for index, opening in enumerate(openings):
            with self._apart(database, index, []):
                database.execute(self.statements.insert_opening, opening)

    @contextmanager
    def _apart(self, database: Any, index: int, failures: Failures) -> Iterator[None]:
        """Let what is done with one row take no other with it; over its values it becomes a failure."""
        database.execute("SAVEPOINT one")
        try:
            yield
        except self.refusals as error:
            if not self.of_a_row(error):
                raise
            database.execute("ROLLBACK TO SAVEPOINT one")
            failures.append((index, f"the ledger refused this row: {error}"))
        database.execute("RELEASE SAVEPOINT one")


def _truncated(row: tuple[Any, ...]) -> tuple[Any, ...]:
    values = list(row)
    values[_STATE], values[_ERROR] = "truncated", "gateway_restarted"
    return tuple(values)


def _left(request: bytes | str | None, subject: str | None, cipher_key: str | None) -> Kept | None:
    """What is kept of an opening's request."""
    if request is None:
        return None
    return request.encode() if isinstance(request, str) else request, None, subject, cipher_key
