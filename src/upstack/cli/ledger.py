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
    export: Annotated[
        Path | None, typer.Argument(help="A folder of `upstack export --everything`, in place of a ledger.")
    ] = None,
    *,
    since: Annotated[str | None, typer.Option("--from", help=_SINCE)] = None,
    until: Annotated[str | None, typer.Option("--to", help=_UNTIL)] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoints that were kept elsewhere, as `upstack ledger checkpoint` printed.")
    ] = None,
    public_key: Annotated[
        list[Path] | None,
        typer.Option(help="A PEM file of `upstack ledger key`; believed beside the local one."),
    ] = None,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find whatever was edited, removed, put in or moved since it was written, and name it.

    What a signed tombstone says was removed on purpose is counted, with the reason. Works while the gateway serves.
    Exit code 1 where something was found.
    """
    from upstack.cli.verifying import Wanted, run

    run(Wanted(export, since, until, checkpoint, tuple(public_key or ())), ledger, config, as_json=as_json)


@app.command()
def key(
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    *,
    new: Annotated[
        bool, typer.Option("--new", help="Make a keystore although the one the ledger was written with is lost.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the public key of what is signed here, checkpoints and tombstones; it is made where there is none."""
    from upstack.cli.signing import show_key

    show_key(ledger, config, new=new, as_json=as_json)


@app.command()
def checkpoint(ledger: LedgerOption = None, config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Sign where each chain stands, a line of JSON each. Kept elsewhere, it shows when a chain was made anew."""
    from upstack.cli.signing import sign

    sign(ledger, config, as_json=as_json)


@app.command()
def prune(
    older_than: Annotated[
        str | None, typer.Option(help="Such as 90d or 12h; default: the configured retention.")
    ] = None,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    *,
    contents_only: Annotated[
        bool, typer.Option("--contents-only", help="Remove requests and answers, and keep the receipts.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much that is.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what is older than it is to be kept. Sums of spend stay, and so does a signed word of what is gone.

    Works while the gateway serves, and slows down for it. Ended in between, it goes on the next time.
    """
    from upstack.cli.removing import prune

    prune(older_than, ledger, config, contents_only=contents_only, dry_run=dry_run, as_json=as_json)


@app.command()
def erase(
    subject: Annotated[str | None, typer.Option(help="Whose contents to erase, with the key they are under.")] = None,
    receipt: Annotated[str | None, typer.Option(metavar="ID", help="Whose request and answer to erase.")] = None,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Erase all contents of a subject, or of one receipt; receipts stay, without them. It cannot be undone."""
    from upstack.cli.removing import erase

    erase(subject, receipt, ledger, config, yes=yes, as_json=as_json)


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
