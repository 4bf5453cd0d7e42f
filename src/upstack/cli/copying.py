"""`upstack ledger backup` and `restore`: the ledger's file, copied and put back."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from upstack.cli.options import ledger_of
from upstack.cli.output import print_json, say
from upstack.core.store import backup as files
from upstack.core.store.chain import CHAIN_ROWS


def backup(target: Path, ledger: str | None, config: Path | None, *, as_json: bool) -> None:
    """Copy and say where the chains end."""
    place = ledger_of(ledger, config)
    ends = files.backup(place, str(target))
    if as_json:
        print_json({"ledger": place, "backup": str(target), "chains": msgspec.to_builtins(ends)})
        return
    for end in ends:
        say(f"{target} is sound: chain {end.id} ends at position {end.seq % CHAIN_ROWS:,}, {end.hash}", style="bold")


def restore(source: Path, ledger: str | None, config: Path | None, *, as_json: bool) -> None:
    """Put back and say what became of the ledger that was there."""
    place = ledger_of(ledger, config)
    ends, aside = files.restore(str(source), place, time.time())
    if as_json:
        print_json({"ledger": place, "backup": str(source), "before": aside, "chains": msgspec.to_builtins(ends)})
        return
    say(f"{place} is what {source} was", style="bold")
    if aside is not None:
        say(f"The ledger that was there is in {aside}")
