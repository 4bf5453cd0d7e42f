"""Writes a ledger into an archive: one moment of it, beside whoever writes, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from upstack import __version__
from upstack.application.data.archive import FORMAT, FORMAT_VERSION, MANIFEST, ArchiveFile, Manifest, Rows, is_binary
from upstack.core.errors import RequestError
from upstack.core.store.rows import moment
from upstack.core.store.schema import VERSION
from upstack.core.store.transfer import TABLES, Column, Table, kind_of, snapshot

ExportFormat = Literal["jsonl", "parquet", "both"]

_BLOCK = 1024 * 1024
NO_DUCKDB = "Parquet needs duckdb: pip install 'upstack[learn]'"


def export(place: str, folder: Path, wanted: ExportFormat, now: float) -> Manifest:
    """Write all tables of the ledger at `place` into `folder`, which is made by this; `now` in Unix seconds.

    RequestError where the folder is there already or cannot be written, LedgerError where the ledger cannot be read.
    """
    if os.path.lexists(folder):
        raise _failed(folder, "is there already, and an export overwrites nothing; name a new folder")
    try:
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))  # for its owner only
    except OSError as error:
        raise _failed(folder, f"cannot be made: {error.strerror}") from None
    try:
        manifest = _write(place, draft, wanted, now)
        os.rename(draft, folder)  # noqa: PTH104 - never replaces what has something in it
        _sync(folder.parent)
    except OSError as error:
        raise _failed(folder, f"cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def _write(place: str, draft: Path, wanted: ExportFormat, now: float) -> Manifest:
    written = []
    with snapshot(place) as ledger:
        ends = ledger.ends()
        for table in TABLES:
            path = draft / f"{table.name}.jsonl"
            rows, longest = _write_rows(path, table, ledger.rows(table))
            if wanted != "parquet":
                written.append(_described(path, table, rows))
            if wanted != "jsonl":
                parquet = path.with_suffix(".parquet")
                _write_parquet(path, parquet, table, longest)
                written.append(_described(parquet, table, rows))
            if wanted == "parquet":
                path.unlink()
    manifest = Manifest(FORMAT, FORMAT_VERSION, VERSION, __version__, moment(now), ends, tuple(written))
    manifest = msgspec.structs.replace(manifest, sha256=manifest.digest())
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    with _new(draft / MANIFEST) as file:
        file.write(text)
    _sync(draft)
    return manifest


def _write_rows(path: Path, table: Table, rows: Iterator[Any]) -> tuple[int, int]:
    """Write a table: how many rows, and how long the longest line is."""
    encode = Rows(table).encode
    count = longest = 0
    with _new(path) as file:
        for row in rows:
            line = encode(row)
            file.write(line)
            count += 1
            longest = max(longest, len(line))
    return count, longest


def _write_parquet(source: Path, target: Path, table: Table, longest: int) -> None:
    try:
        import duckdb  # noqa: PLC0415 - an extra
    except ImportError:
        raise RequestError(NO_DUCKDB, code="no_duckdb") from None
    types = {column.name: _duckdb_type(column) for column in table.columns}
    columns = ", ".join(_unpacked(column) if is_binary(column) else f'"{column.name}"' for column in table.columns)
    # The names are the tables' own, and the paths are bound.
    query = (
        f"COPY (SELECT {columns} FROM read_json($source, format = 'newline_delimited', columns = $types,"  # noqa: S608
        f" maximum_object_size = {max(2 * longest, 16 * _BLOCK)})) TO '{_quoted(target)}' (FORMAT parquet)"
    )
    options: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "threads": "2",
    }
    with contextlib.closing(duckdb.connect(config=options)) as database:
        database.execute(query, {"source": str(source), "types": types})
    target.chmod(0o600)


def _duckdb_type(column: Column[Any]) -> str:
    return {bytes: "JSON", float: "DOUBLE", int: "BIGINT", str: "VARCHAR"}[kind_of(column)]


def _unpacked(column: Column[Any]) -> str:
    name = f'"{column.name}"'
    return (
        f"CASE json_type({name}) WHEN 'VARCHAR' THEN encode({name} ->> '$')"
        f" ELSE from_base64({name} ->> 'base64') END AS {name}"
    )


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _described(path: Path, table: Table, rows: int) -> ArchiveFile:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ArchiveFile(path.name, str(table.name), path.suffix[1:], rows, path.stat().st_size, digest)


@contextlib.contextmanager
def _new(path: Path) -> Iterator[Any]:
    """A new file, readable by its owner only, on the disk when it is closed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb", buffering=_BLOCK) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(folder: Path, words: str) -> RequestError:
    return RequestError(f"{folder} {words}", code="export_failed")
