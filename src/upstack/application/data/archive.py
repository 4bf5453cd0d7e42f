"""A ledger as a folder of files that anything can read: a line of JSON a row, and a manifest of hashes.

    manifest.json     what is here: the ledger's version, each file's rows, bytes and SHA-256, where the chains end
    TABLE.jsonl       a table of the ledger, an object a row, in the order of its primary key
    TABLE.parquet     the same for analysis, where asked for; a ledger is not filled from it

In JSON a binary value (request, answer, comment, demonstration) is the text it is, and {"base64": "..."} where it is no
text in UTF-8; a salt always is that. Nothing is rounded: a number comes back as it was.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from upstack.core.errors import RequestError
from upstack.core.store.schema import VERSION
from upstack.core.store.transfer import TABLES, ChainEnd, Column, Table, Values, fill, kind_of

MANIFEST = "manifest.json"
FORMAT = "upstack-ledger-export"
FORMAT_VERSION = 1

_MANIFEST_BYTES = 1024 * 1024
_LINE_BYTES = 1024 * 1024 * 1024  # contents of 512 MB, which is more than a request or an answer may be


class ArchiveFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of an archive."""

    name: str
    table: str
    format: str  # "jsonl" or "parquet"
    rows: int
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an archive says of itself. `sha256` is over all the rest: its JSON with sorted keys and no white space."""

    format: str
    format_version: int
    ledger_version: int
    upstack: str  # the version that wrote it
    created_at: str
    chains: tuple[ChainEnd, ...]
    files: tuple[ArchiveFile, ...]
    sha256: str = ""

    def digest(self) -> str:
        """Hash all but the hash."""
        rest = msgspec.structs.replace(self, sha256="")
        return hashlib.sha256(msgspec.json.encode(rest, order="sorted")).hexdigest()


class Archive:
    """An archive that is there to be read. RequestError (`invalid_export`) names the file and what is wrong."""

    def __init__(self, folder: Path) -> None:
        """Read the manifest; it is what it says, and this version can read what it names."""
        self._folder = folder
        with _opened(folder / MANIFEST) as file:
            text = file.read(_MANIFEST_BYTES + 1)
        try:
            if len(text) > _MANIFEST_BYTES:
                raise ValueError("it is longer than 1 MB")
            self.manifest = manifest = msgspec.json.decode(text, type=Manifest)
            if manifest.format != FORMAT or manifest.format_version != FORMAT_VERSION:
                raise ValueError(f"it is {manifest.format} {manifest.format_version}, not {FORMAT} {FORMAT_VERSION}")
            if manifest.digest() != manifest.sha256:
                raise ValueError("its sha256 is not that of what it says: it was changed")
        except (ValueError, RecursionError) as error:  # msgspec's errors and those of UTF-8 among them
            raise invalid(f"{folder / MANIFEST}: {error}") from None
        if manifest.ledger_version != VERSION:
            raise invalid(
                f"{folder}: of ledger version {manifest.ledger_version}, this Upstack has {VERSION}; "
                f"use it with the Upstack that wrote it ({manifest.upstack})"
            )
        known = {f"{table.name}.{kind}": table for table in TABLES for kind in ("jsonl", "parquet")}
        for each in manifest.files:
            if each.name not in known or f"{each.table}.{each.format}" != each.name:
                raise invalid(f"{folder / MANIFEST}: it names a file {each.name!r} that no table has")
        self._files = {each.name: each for each in manifest.files}
        if len(self._files) != len(manifest.files):
            raise invalid(f"{folder / MANIFEST}: it names a file twice")

    def check(self) -> None:
        """Hash every file that the manifest names."""
        for each in self.manifest.files:
            with _opened(self._folder / each.name) as file:
                if os.fstat(file.fileno()).st_size != each.bytes:
                    raise invalid(f"{self._folder / each.name}: not {each.bytes:,} bytes, as {MANIFEST} says")
                if hashlib.file_digest(file, "sha256").hexdigest() != each.sha256:
                    raise invalid(f"{self._folder / each.name}: its sha256 is not that of {MANIFEST}: it was changed")

    def fill(self, place: str) -> int:
        """Check all, then make of it the ledger at `place`, which is empty; how many rows it has."""
        self.check()
        return fill(place, ((table, self.rows(table)) for table in TABLES), self.manifest.chains)

    def rows(self, table: Table) -> Iterator[Values]:
        """Yield a table's rows; binary values as text where they are text. `check` first."""
        path = self._folder / f"{table.name}.jsonl"
        said = self._files.get(path.name)
        if said is None:
            raise invalid(f"{path}: not in the export; a ledger is filled from one with --format jsonl or both")
        decode = Rows(table).decode
        number = 0
        with _opened(path) as file:
            while line := file.readline(_LINE_BYTES + 1):
                number += 1
                try:
                    yield decode(line)
                except (ValueError, RecursionError) as error:
                    raise invalid(f"{path}, line {number}: {error}") from None
        if number != said.rows:
            raise invalid(f"{path}: {number:,} rows, {said.rows:,} in {MANIFEST}")


class Rows:
    """Reads and writes the rows of one table."""

    def __init__(self, table: Table) -> None:
        self._names = [column.name for column in table.columns]
        self._types = [_types_of(column) for column in table.columns]
        self._binary = [index for index, column in enumerate(table.columns) if is_binary(column)]

    def encode(self, row: Values) -> bytes:
        """Make a line."""
        values = list(row)
        for index in self._binary:
            if values[index] is not None and not isinstance(values[index], str):
                values[index] = _as_json(bytes(values[index]), self._names[index])
        return msgspec.json.encode(dict(zip(self._names, values, strict=True))) + b"\n"

    def decode(self, line: bytes) -> Values:
        """Read a line. ValueError where it is not a row of the table."""
        row = msgspec.json.decode(line, type=dict[str, Any])
        if row.keys() != set(self._names):
            wrong = min(row.keys() ^ set(self._names))
            raise ValueError(f"there is {'an unknown' if wrong in row else 'no'} column {wrong[:200]!r}")
        values = [row[name] for name in self._names]
        for index in self._binary:
            if isinstance(values[index], dict):
                values[index] = _from_json(values[index], self._names[index])
        for name, types, value in zip(self._names, self._types, values, strict=True):
            if value is not None and type(value) not in types:
                raise ValueError(f"`{name}` is of a wrong type")
        return tuple(values)


def invalid(words: str) -> RequestError:
    """The error of an export that cannot be used."""
    return RequestError(words, code="invalid_export")


def is_binary(column: Column[Any]) -> bool:
    """Whether a column holds bytes."""
    return kind_of(column) is bytes


def _types_of(column: Column[Any]) -> tuple[type, ...]:
    if is_binary(column):
        return (bytes,) if column.name == "salt" else (bytes, str)
    kind = kind_of(column)
    return (float, int) if kind is float else (kind,)


def _as_json(value: bytes, name: str) -> str | dict[str, str]:
    if name != "salt":
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    return {"base64": base64.b64encode(value).decode()}


def _from_json(value: dict[str, Any], name: str) -> bytes:
    text = value.get("base64")
    if not isinstance(text, str) or len(value) != 1:
        raise ValueError(f'`{name}` is neither a text nor {{"base64": "..."}}')
    return base64.b64decode(text, validate=True)


def _opened(path: Path) -> io.BufferedReader:
    """Open a plain file, no link and no pipe. RequestError where there is none."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise invalid(f"{path}: is a link, which is not followed") from None
        raise invalid(f"{path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise invalid(f"{path}: is no file")
    return file
