"""`upstack export`: a whole ledger as files that anything can read."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from upstack.application.data.exporting import NO_DUCKDB, ExportFormat, export
from upstack.cli.options import ledger_of
from upstack.cli.output import print_json, say
from upstack.core.errors import ConfigError, RequestError
from upstack.core.store.places import shown


def run(folder: Path, wanted: str, ledger: str | None, config: Path | None, *, as_json: bool) -> None:
    """Export and say what was written; without duckdb what was to be both formats is JSONL alone."""
    formats: dict[str, ExportFormat] = {"jsonl": "jsonl", "parquet": "parquet", "both": "both"}
    if wanted not in formats:
        raise ConfigError(f'--format "{wanted}": expected jsonl, parquet or both')
    place = ledger_of(ledger, config)
    try:
        manifest = export(place, folder, formats[wanted], time.time())
    except RequestError as error:
        if error.code != "no_duckdb" or wanted == "parquet":
            raise
        manifest = export(place, folder, "jsonl", time.time())
        say(f"Only JSONL was written. {NO_DUCKDB}", style="yellow", stderr=True)
    if as_json:
        print_json({"ledger": shown(place), "folder": str(folder), "manifest": msgspec.to_builtins(manifest)})
        return
    rows = {each.table: each.rows for each in manifest.files}
    size = sum(each.bytes for each in manifest.files)
    say(f"{shown(place)}: {rows['receipts']:,} receipts, {sum(rows.values()):,} rows in all, in {folder}", style="bold")
    say(f"{len(manifest.files)} files of {size / 1e6:,.1f} MB and manifest.json, sha256 {manifest.sha256}")
