"""`upstack ledger verify`: says what of the ledger is not as it was written."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import typer

from upstack.cli.options import ledger_of
from upstack.cli.output import print_json, say
from upstack.core.errors import ConfigError
from upstack.core.store.ids import first_id
from upstack.core.store.places import shown
from upstack.core.store.verify import verify
from upstack.core.store.walk import Verification


def run(since: str | None, until: str | None, ledger: str | None, config: Path | None, *, as_json: bool) -> None:
    """Verify and print; exit code 1 where something was found."""
    place = ledger_of(ledger, config)
    done = verify(place, _bound(since, "--from"), _bound(until, "--to"))
    if as_json:
        print_json({"ledger": shown(place), "whole": not done.found, **msgspec.to_builtins(done)})
    else:
        _print(place, done)
    if done.found:
        raise typer.Exit(1)


def _print(place: str, done: Verification) -> None:
    for finding in done.findings:
        where = f"chain {finding.chain}, position {finding.position}"
        say(f"{where}: {finding.receipt} {finding.what}" if finding.receipt else f"{where}: {finding.what}")
    if done.found > len(done.findings):
        say(f"... and {done.found - len(done.findings):,} more")
    looked = (
        f"{done.receipts:,} receipts and {done.contents:,} contents in {done.chains} chain{'s'[: done.chains != 1]}"
    )
    if done.found:
        say(f"{shown(place)} is NOT as it was written: {done.found:,} findings in {looked}", style="bold red")
    else:
        say(f"{shown(place)} is whole: {looked}, each as it was written", style="bold green")


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
