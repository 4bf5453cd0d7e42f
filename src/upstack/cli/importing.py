"""`upstack import`: a whole ledger from an export, or receipts from what another system recorded."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

import msgspec
import typer

from upstack.application.data.archive import Archive, invalid
from upstack.application.data.importers.source import FORMATS, Imported, import_file
from upstack.cli.options import keystore_of as configured_keystore
from upstack.cli.options import ledger_of
from upstack.cli.output import counted, print_json, say
from upstack.core.errors import ConfigError, LedgerError
from upstack.core.store.places import keystore_of, shown
from upstack.core.store.verify import trusted, verify


class Wanted(NamedTuple):
    """What is to be imported, and how."""

    source: str
    format: str | None
    task: str | None
    rejects: Path | None


def run(wanted: Wanted, ledger: str | None, config: Path | None, *, as_json: bool) -> None:
    """Import a folder as a whole ledger, a file line by line."""
    place = ledger_of(ledger, config)
    if Path(wanted.source).is_dir():
        if (wanted.format, wanted.task, wanted.rejects) != (None, None, None):
            raise ConfigError("--format, --task and --rejects are for files; an export of a ledger is taken as it is")
        keystore = keystore_of(place, configured_keystore(ledger, config))
        import_ledger(Path(wanted.source), place, keystore, as_json=as_json)
        return
    if wanted.format is not None and wanted.format not in FORMATS:
        raise ConfigError(f'--format "{wanted.format}": expected one of {", ".join(FORMATS)}')
    with contextlib.ExitStack() as stack:
        file = None
        if wanted.rejects is not None:
            try:
                file = stack.enter_context(wanted.rejects.open("xb"))
            except OSError as error:
                raise ConfigError(f"--rejects {wanted.rejects}: {error.strerror}; name a new file") from None

        def reject(_number: int, _reason: str, line: bytes) -> None:
            if file is not None:
                file.write(line.rstrip(b"\n") + b"\n")

        done = import_file(place, wanted.source, wanted.format, wanted.task, reject)
    if as_json:
        print_json({"ledger": shown(place), "guessed": wanted.format is None, **msgspec.to_builtins(done)})
    else:
        _print(done, place, guessed=wanted.format is None)
    if done.rejected and not done.added + done.known:
        raise typer.Exit(1)


def _print(done: Imported, place: str, *, guessed: bool) -> None:
    how = ", which was guessed; --format says another" if guessed else ""
    say(f"Read as {done.format}{how}: {counted(done.lines, 'line')}.")
    say(f"{shown(place)}: {counted(done.added, 'receipt')} added, {done.known:,} already there.", style="bold")
    if done.timeless:
        say(f"{done.timeless:,} state no time: they stand at 1970-01-01, before all that retention keeps.")
    for number, reason in done.rejects:
        say(f"line {number}: {reason}", style="yellow")
    if done.rejected > len(done.rejects):
        say(f"... and {done.rejected - len(done.rejects):,} more that could not be taken", style="yellow")


def import_ledger(folder: Path, place: str, keystore: str, *, as_json: bool) -> None:
    """Check every hash, fill the ledger in one transaction, then go along its chains.

    `keystore`: where that of the exported ledger is, which no export holds.
    """
    archive = Archive(folder)
    rows = archive.fill(place)
    done = verify(place, keys=trusted(keystore))
    if as_json:
        told = {"ledger": shown(place), "rows": rows, "whole": not done.found}
        print_json({**told, "receipts": done.receipts, "chains": msgspec.to_builtins(archive.manifest.chains)})
    else:
        say(f"{shown(place)} has all {rows:,} rows of {folder}, with the hashes they had", style="bold")
    if done.found and not Path(keystore).exists():
        words = "put it there or name it in server.keystore, then see `upstack ledger verify`"
        raise LedgerError(
            f"the rows are in, but what is signed needs the keystore, which is not at {keystore}: {words}"
        )
    if done.found:
        raise invalid(f"{shown(place)}: {done.found:,} findings, as in what was exported: `upstack ledger verify`")
    if not as_json:
        say(f"{done.receipts:,} receipts and {done.contents:,} contents, each as it was written", style="bold green")
