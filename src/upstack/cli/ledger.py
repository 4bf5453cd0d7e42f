"""`upstack ledger ...`: parameters and help of what is done with a ledger as a whole."""
# ruff: noqa: PLC0415 - what a command does is loaded when it is called

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upstack.cli.options import ConfigOption, JsonOption, LedgerOption

app = typer.Typer(no_args_is_help=True, help="Check and move the ledger.")

_SINCE = "The first to look at: a receipt's id, or a time such as 2026-11-26 or 2026-11-26T14:30 (UTC)."
_UNTIL = "The first not to look at any more, in the same way."


@app.callback()
def group() -> None:
    """Keep `ledger` a group of commands, however many there are."""


@app.command()
def verify(
    since: Annotated[str | None, typer.Option("--from", help=_SINCE)] = None,
    until: Annotated[str | None, typer.Option("--to", help=_UNTIL)] = None,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Find every receipt that was edited, removed, put in or moved since it was written, and name it.

    Works while the gateway serves. Exit code 1 where something was found.
    """
    from upstack.cli.verifying import run

    run(since, until, ledger, config, as_json=as_json)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="A file that is not there yet.")],
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Copy the ledger's file while the gateway serves; the copy is checked before it has its name. Keys are not in it.

    A ledger in PostgreSQL: pg_dump, or `upstack export --everything`.
    """
    from upstack.cli.copying import backup as run

    run(target, ledger, config, as_json=as_json)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="What `upstack ledger backup` wrote.")],
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Put a backup in the ledger's place while no gateway runs; what was there stays beside it, under a dated name."""
    from upstack.cli.copying import restore as run

    run(source, ledger, config, as_json=as_json)
