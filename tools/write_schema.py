"""Writes core/store/schema.sql, the short way to a new ledger, from tables.py; `--check` says whether it is stale.

The columns have their comments beside them, so that they can be read in any SQLite browser. A test compares it with
what the migrations make.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from upstack.core.store.schema import VERSION
from upstack.core.store.tables import metadata

SCHEMA = Path(__file__).resolve().parent.parent / "src/upstack/core/store/schema.sql"
HEAD = "-- Written by tools/write_schema.py (`make schema`) from tables.py: change it there, and add a migration.\n"
VERSIONS = """CREATE TABLE upstack_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT upstack_version_pkc PRIMARY KEY (version_num)
);

INSERT INTO upstack_version VALUES ('{version:04}');
"""


def main(arguments: list[str]) -> int:
    """Write the file, or with `--check` compare; 1 where it is stale."""
    text = "\n".join([HEAD, *map(_statement, metadata.sorted_tables), VERSIONS.format(version=VERSION)])
    if "--check" not in arguments:
        SCHEMA.write_text(text, encoding="utf-8")
        return 0
    stale = not SCHEMA.exists() or SCHEMA.read_text(encoding="utf-8") != text
    print("core/store/schema.sql is stale: run make schema" if stale else f"Schema: {len(metadata.tables)} tables.")
    return 1 if stale else 0


def _statement(table: sa.Table) -> str:
    """CREATE TABLE as a person would write it, each column with its comment."""
    lines = [line.strip() for line in str(CreateTable(table).compile(dialect=sqlite.dialect())).splitlines()]
    first, *rest = filter(None, lines)
    shown = [first + (f"  -- {table.comment}" if table.comment else "")]
    for line in rest:
        name = re.match(r'"?(\w+)', line)
        column = table.columns.get(name[1]) if name is not None and not line.startswith(")") else None
        comment = f"  -- {column.comment}" if column is not None and column.comment else ""
        shown.append(line if line.startswith(")") else f"    {line}{comment}")
    table_alone = "\n".join(shown).replace(")\n    WITHOUT ROWID", ") WITHOUT ROWID")
    indexes = sorted(str(CreateIndex(index).compile(dialect=sqlite.dialect())).strip() for index in table.indexes)
    return "".join(f"{statement};\n" for statement in [table_alone, *indexes])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
