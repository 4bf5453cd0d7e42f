"""`upstack import`: a whole ledger from an export."""

from __future__ import annotations

from pathlib import Path

import msgspec

from upstack.application.data.archive import Archive, invalid
from upstack.cli.output import print_json, say
from upstack.core.store.places import shown
from upstack.core.store.transfer import TABLES, fill
from upstack.core.store.verify import verify


def import_ledger(folder: Path, place: str, *, as_json: bool) -> None:
    """Check every hash, fill the ledger in one transaction, then go along its chains."""
    archive = Archive(folder)
    archive.check()
    rows = fill(place, ((table, archive.rows(table)) for table in TABLES), archive.manifest.chains)
    done = verify(place)
    if as_json:
        told = {"ledger": shown(place), "rows": rows, "whole": not done.found}
        print_json({**told, "receipts": done.receipts, "chains": msgspec.to_builtins(archive.manifest.chains)})
    else:
        say(f"{shown(place)} has all {rows:,} rows of {folder}, with the hashes they had", style="bold")
    if done.found:
        raise invalid(
            f"{shown(place)}: {done.found:,} findings, as in the ledger that was exported: `upstack ledger verify`"
        )
    if not as_json:
        say(f"{done.receipts:,} receipts and {done.contents:,} contents, each as it was written", style="bold green")
