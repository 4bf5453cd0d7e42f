"""`upstack ledger verify`: says what of the ledger is not as it was written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
import typer

from upstack.application.data.archive import Archive
from upstack.cli.options import keystore_of as configured_keystore
from upstack.cli.options import ledger_of
from upstack.cli.output import counted, print_json, say
from upstack.core.errors import ConfigError, LedgerError
from upstack.core.store.ids import first_id
from upstack.core.store.places import keystore_of, shown
from upstack.core.store.signing import PublicKeys
from upstack.core.store.statements import Checkpoint
from upstack.core.store.verify import trusted, verify
from upstack.core.store.walk import Verification


class Wanted(NamedTuple):
    """What is to be verified, against what."""

    export: Path | None  # in place of a ledger
    since: str | None
    until: str | None
    checkpoint: Path | None
    public_keys: tuple[Path, ...]


def run(wanted: Wanted, ledger: str | None, config: Path | None, *, as_json: bool) -> None:
    """Verify and print; exit code 1 where something was found."""
    since, until = _bound(wanted.since, "--from"), _bound(wanted.until, "--to")
    if wanted.export is None:
        place = ledger_of(ledger, config)
        keys = trusted(keystore_of(place, configured_keystore(ledger, config)))
    elif ledger is None:
        place = str(wanted.export)
        keys = PublicKeys()  # those of this machine say nothing about an export from elsewhere
    else:
        raise ConfigError("Name an export or a --ledger, not both")
    for path in wanted.public_keys:
        try:
            keys.add(_read(path, "--public-key"))
        except LedgerError as error:
            raise ConfigError(f"--public-key {path}: {error.message}") from None
    held = [] if wanted.checkpoint is None else _checkpoints(wanted.checkpoint)
    with _ledger_of(wanted.export, place) as readable:
        done = verify(readable, since, until, keys=keys, held=held)
    if as_json:
        print_json({"ledger": shown(place), "whole": not done.found, **msgspec.to_builtins(done)})
    else:
        _print(place, done)
    if done.found:
        raise typer.Exit(1)


@contextmanager
def _ledger_of(export: Path | None, place: str) -> Iterator[str]:
    """The ledger itself; of an export a ledger with its rows, for as long as it takes."""
    if export is None:
        yield place
        return
    archive = Archive(export)
    with TemporaryDirectory(prefix="upstack-verify-") as folder:
        copy = str(Path(folder) / "export.db")
        archive.fill(copy)
        yield copy


def _print(place: str, done: Verification) -> None:
    for finding in done.findings:
        where = f"chain {finding.chain}, position {finding.position}"
        say(f"{where}: {finding.receipt} {finding.what}" if finding.receipt else f"{where}: {finding.what}")
    if done.found > len(done.findings):
        say(f"... and {done.found - len(done.findings):,} more")
    for removed in done.removed:
        what = counted(removed.removed, "content")
        if removed.kind == "rows":
            what = f"{counted(removed.removed, 'row')} with what they held"
        say(f"Removed on purpose, and signed for: {what}: {removed.why}")
    outcomes = f", {counted(done.outcomes, 'outcome')}" if done.outcomes else ""
    counts = f"{counted(done.receipts, 'receipt')}{outcomes} and {counted(done.contents, 'content')}"
    against = f", {counted(done.checkpoints, 'checkpoint')}" if done.checkpoints else ""
    looked = f"{counts} in {counted(done.chains, 'chain')}{against}"
    if done.found:
        say(f"{shown(place)} is NOT as it was written: {counted(done.found, 'finding')} in {looked}", style="bold red")
    else:
        say(f"{shown(place)} is whole: {looked}, each as it was written", style="bold green")


def _checkpoints(path: Path) -> list[Checkpoint]:
    """Read what `upstack ledger checkpoint` printed: a line each, or with --json one document."""
    text = _read(path, "--checkpoint")
    try:
        if text.lstrip().startswith("["):
            return msgspec.json.decode(text, type=list[Checkpoint])
        found = [msgspec.json.decode(line, type=Checkpoint) for line in text.splitlines() if line.strip()]
    except msgspec.DecodeError as error:
        raise ConfigError(f"--checkpoint {path}: no checkpoints of `upstack ledger checkpoint`: {error}") from None
    if not found:
        raise ConfigError(f"--checkpoint {path}: there is no checkpoint in it")
    return found


def _read(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option} {path}: cannot be read: {error}") from None


def _bound(given: str | None, option: str) -> str | None:
    """Read an id, or a time as the id that stands before all of that time."""
    if given is None or given.startswith("rcpt_"):
        return given
    try:
        moment = datetime.fromisoformat(given)
        return first_id((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise ConfigError(
            f'{option} "{given}": expected the id of a receipt, or a time such as 2026-11-26T14:30'
        ) from None
