"""Lines of a file that nobody vouches for, and receipts made of them into a ledger: what is bad is named and left out.

A line of any length, binary garbage and half a last line cost a reject each. Memory is that of the longest line that
is taken and a page of receipts.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from upstack.application.data.importers import langfuse, litellm, openai_jsonl, otlp_json, traffic
from upstack.application.data.importers.exchange import Exchange, said_in_words
from upstack.core.errors import LedgerError, RequestError
from upstack.core.store.batches import batch_of
from upstack.core.store.frames import WHOLE_BATCH
from upstack.core.store.reading import known_ids
from upstack.core.store.rights import keep_rights
from upstack.core.store.rows import to_row
from upstack.core.store.writer import open_ledger
from upstack.core.traffic import MAX_LINE_BYTES
from upstack.core.types import Outcome, Receipt

FORMATS: dict[str, Callable[[bytes], Iterator[Exchange]]] = {
    "traffic": traffic.read,
    "openai-jsonl": openai_jsonl.read,
    "litellm": litellm.read,
    "langfuse": langfuse.read,
    "otlp-json": otlp_json.read,
}
SHOWN_REJECTS = 20

_PAGE = 500  # receipts that share a commit
_PAGE_BYTES = 8 * 1024 * 1024
_LOCK_WAIT_S = 1.0
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_Read = tuple[int, Receipt, Outcome | None, Any]  # the line's number, what it became, what is said of its rights

Reject = Callable[[int, str, bytes], None]  # the line's number, the reason, the line or what was read of it


class Imported(msgspec.Struct):
    """What came of it, so far."""

    format: str
    lines: int = 0
    added: int = 0
    known: int = 0  # were there already
    timeless: int = 0  # whose source states no time, added or known
    rejected: int = 0
    rejects: list[tuple[int, str]] = []  # the first SHOWN_REJECTS


def import_file(place: str, source: str, form: str | None, task: str | None, reject: Reject) -> Imported:
    """Put what the file `source` ("-": standard input) says into the ledger; `form` is guessed where it is None.

    RequestError where the file cannot be read or is of no known format, LedgerError where the ledger fails: what is in
    is in, and is known when it is imported again.
    """
    lines = _lines(source)
    first = next(lines, None)
    form = form or guess(first[1] if first is not None else b"", source)
    done = Imported(form)
    ledger = open_ledger(place, _LOCK_WAIT_S)
    try:
        page: list[_Read] = []
        size = 0

        def turn_down(number: int, reason: str, line: bytes) -> None:
            done.rejected += 1
            if len(done.rejects) < SHOWN_REJECTS:
                done.rejects.append((number, reason))
            reject(number, reason, line)

        def write() -> None:
            new = _unknown(place, page, done)
            if not new:
                page.clear()
                return
            failures = dict(ledger.record(batch_of([each[1] for each in new], [each[2] for each in new])))
            if WHOLE_BATCH in failures:
                raise LedgerError(f"{failures[WHOLE_BATCH]}; {done.added:,} are in, import the file again for the rest")
            refused = [index for index in failures if index < len(new)]  # behind them are those of outcomes
            for index in refused:
                turn_down(new[index][0], failures[index], b"")
            keep_rights(place, {each[1].id: words for each in new if (words := said_in_words(each[3])) is not None})
            done.added += len(new) - len(refused)
            page.clear()

        while first is not None:
            number, line, wrong = first
            done.lines = number
            try:
                if wrong is not None:
                    raise ValueError(wrong)
                for exchange in FORMATS[form](line) if line and not line.isspace() else ():
                    receipt = _receipt(exchange, form, f"{_name(source)} line {number}", task, done)
                    page.append((number, receipt, exchange.outcome(form, receipt), exchange.rights))
                    size += len(exchange.request or b"") + len(exchange.answer or b"")
            except (ValueError, TypeError, OverflowError, RecursionError) as error:
                turn_down(number, _reason(error), line)
            if len(page) >= _PAGE or size > _PAGE_BYTES:
                write()
                size = 0
            first = next(lines, None)
        write()
    finally:
        ledger.close()
    return done


def guess(line: bytes, source: str) -> str:
    """Tell the format by the first line. RequestError where it is none of those known."""
    for form, read in FORMATS.items():
        try:
            if list(read(line)):
                return form
        except (ValueError, TypeError, RecursionError):
            continue
    raise RequestError(f"{source}: its first line does not tell the format; say --format {'|'.join(FORMATS)}")


def _receipt(exchange: Exchange, form: str, where: str, task: str | None, done: Imported) -> Receipt:
    receipt = exchange.receipt(form, where, task, 0.0)
    to_row(receipt)  # what no ledger holds is found while its line is known
    done.timeless += exchange.time is None
    return receipt


def _unknown(place: str, page: list[_Read], done: Imported) -> list[_Read]:
    """Leave out what is in the ledger, or twice on this page."""
    seen = known_ids(place, [each[1].id for each in page]) if page else set()
    new = []
    for read in page:
        receipt = read[1]
        if receipt.id in seen:
            done.known += 1
        else:
            seen.add(receipt.id)
            new.append(read)
    return new


def _lines(source: str) -> Iterator[tuple[int, bytes, str | None]]:
    """Number and text of each line; with a reason where it is too long, and then only its beginning."""
    number = 0
    try:
        with _opened(source) as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if number == 1:
                    line = line.removeprefix(_BYTE_ORDER_MARK)
                wrong = None
                if len(line) > MAX_LINE_BYTES:
                    wrong = f"longer than {MAX_LINE_BYTES // 2**20} MB"
                    rest = line
                    while rest and not rest.endswith(b"\n"):
                        rest = file.readline(MAX_LINE_BYTES)
                    line = line[:1000]
                yield number, line, wrong
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield number + 1, b"", f"broken gzip: {error}"
    except OSError as error:
        raise RequestError(f"{source}: cannot be read: {error.strerror or error}", code="invalid_import") from None


def _opened(source: str) -> IO[bytes]:
    if source == "-":
        return sys.stdin.buffer
    return gzip.open(source, "rb") if source.endswith(".gz") else Path(source).open("rb")  # type: ignore[return-value]


def _name(source: str) -> str:
    return "standard input" if source == "-" else Path(source).name[:200]


def _reason(error: Exception) -> str:
    """Say what is wrong, in one line and without the content."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error)[:300] or type(error).__name__
