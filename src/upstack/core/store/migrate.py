"""Brings a ledger's tables to the newest version: `python -m upstack.core.store.migrate`, the place on standard input.

A process of its own, as what it loads would stay in the writer for good. One transaction: a kill in the middle leaves
the ledger as it was.
"""

from __future__ import annotations

import sys
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from upstack.core.store.engine import transaction
from upstack.core.store.places import is_postgres
from upstack.core.store.schema import APPLICATION_ID, VERSION

_LOCK = 0x5550_5354_0001  # of PostgreSQL, so that two hosts do not migrate at once


def migrate(place: str) -> None:
    """Migrate the ledger at `place`, which exists (an empty file or database does). Raises SQLAlchemyError."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    with transaction(place, write=True) as connection:
        config.attributes["connection"] = connection
        if is_postgres(place):
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            command.upgrade(config, "head")
            return
        if connection.exec_driver_sql("PRAGMA user_version").scalar() == 1:
            command.stamp(config, "0001")  # made before there was the table of versions
        command.upgrade(config, "head")
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")


def main() -> int:
    """Migrate; what keeps it from that goes to standard output, for the writer to tell."""
    try:
        migrate(sys.stdin.read())
    except sa.exc.SQLAlchemyError as error:
        print(str(getattr(error, "orig", None) or error).splitlines()[0])  # noqa: T201 - the writer reads it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
