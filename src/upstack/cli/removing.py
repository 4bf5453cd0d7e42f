"""`upstack ledger prune` and `erase`: what is taken out of a ledger, and said to be."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import msgspec
import typer

from upstack.application.data.forgetting import Forgotten, forget
from upstack.cli.options import keystore_of, ledger_of, read
from upstack.cli.output import counted, print_json, say
from upstack.core.errors import ConfigError, RequestError
from upstack.core.store.custody import custody
from upstack.core.store.engine import saying, transaction
from upstack.core.store.erasure import Erased, erase_receipt
from upstack.core.store.places import is_postgres, shown
from upstack.core.store.reading import check_version, read_receipt
from upstack.core.store.retention import Pruned, Retention, count
from upstack.core.store.retention import prune as prune_now
from upstack.core.types import DAY_S

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY_S}


def prune(
    older_than: str | None,
    ledger: str | None,
    config: Path | None,
    *,
    contents_only: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove, or count, what is too old."""
    place = ledger_of(ledger, config)
    retention = _retention(older_than, config, contents_only=contents_only)
    now = time.time()
    if dry_run:
        check_version(place)
        with saying(place), transaction(place) as database:
            pruned = count(database, retention, now)
    else:
        with custody(place, keystore_of(ledger, config)) as (_, signer):
            pruned = prune_now(place, signer, retention, now, lambda: True)
    if as_json:
        print_json({"ledger": shown(place), "dry_run": dry_run, **msgspec.to_builtins(pruned)})
    else:
        say(f"{shown(place)}: {_told(pruned)} {'would be' if dry_run else 'were'} removed")


def erase(
    subject: str | None, receipt: str | None, ledger: str | None, config: Path | None, *, yes: bool, as_json: bool
) -> None:
    """Erase after a question; again, it says that nothing is there."""
    if (subject is None) == (receipt is None):
        raise ConfigError("say --subject NAME or --receipt ID, one of them")
    place, keystore = ledger_of(ledger, config), keystore_of(ledger, config)
    if receipt is not None and read_receipt(place, receipt, keystore) is None:
        raise RequestError(f'{shown(place)} has no receipt "{receipt}"', code="receipt_not_found")
    whose = f"of the subject {subject}" if subject is not None else f"of {receipt}"
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise ConfigError("what is erased is gone for good: say --yes, too")
        typer.confirm(f"Erase all contents {whose} from {shown(place)}, for good?", abort=True)
    forgotten = None
    with custody(place, keystore) as (opened, signer):
        if subject is not None:
            forgotten = forget(place, opened, signer, subject)
            erased = forgotten.erased
        else:
            assert receipt is not None  # noqa: S101 - one of them is given
            erased = erase_receipt(place, signer, receipt)
    if as_json:
        more = {} if forgotten is None else msgspec.to_builtins(forgotten)
        more.pop("erased", None)
        print_json({"ledger": shown(place), **msgspec.to_builtins(erased), **more})
        return
    for line in _in_words(erased, whose, place):
        say(line)
    if forgotten is not None:
        for line in _elsewhere(forgotten):
            say(line)


def _in_words(erased: Erased, whose: str, place: str) -> list[str]:
    if not erased.contents and not erased.openings and not erased.keys:
        return [f"{shown(place)} has no contents {whose}: nothing was erased"]
    begun = f" and the requests of {erased.openings:,} streams under way" if erased.openings else ""
    key = ", and their key" if erased.keys else ""
    lines = [f"{erased.contents:,} contents {whose}{begun} were erased{key}"]
    if erased.keys_elsewhere:
        lines.append(
            f"Some were under keys that this keystore does not have ({', '.join(erased.keys_elsewhere)}): "
            "do the same where these are, as backups can still be read with them"
        )
    if erased.in_file:
        lines.append("Another program still reads the ledger: an old copy stands in its -wal file until that has ended")
    if is_postgres(place):
        lines.append("PostgreSQL overwrites what was deleted in its own time: VACUUM hastens it")
    return lines


def _told(pruned: Pruned) -> str:
    return f"{pruned.rows:,} receipts and outcomes, and the contents of {pruned.contents:,} that stay,"


def _retention(older_than: str | None, config: Path | None, *, contents_only: bool) -> Retention:
    if older_than is not None:
        given = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([smhd])", older_than)
        if given is None:
            raise ConfigError(f'--older-than "{older_than}": expected a number and s, m, h or d, such as 90d')
        days = float(given[1]) * _UNITS[given[2]] / DAY_S
        if not days:
            raise ConfigError("--older-than: 0 would remove all there is; 1s is the least")
        return Retention(0.0, days) if contents_only else Retention(days)
    server = read(config).server
    rows = 0.0 if contents_only else server.retention_days
    if not rows and not server.content_retention_days:
        raise ConfigError("nothing is too old: set server.retention_days or say --older-than 90d")
    return Retention(rows, server.content_retention_days)


def _elsewhere(forgotten: Forgotten) -> list[str]:
    """What was reached beside contents."""
    found = []
    if forgotten.students:
        found.append(f"{counted(len(forgotten.students), 'student')} learned from it, and will be trained anew")
    if forgotten.snapshots:
        found.append(f"{counted(forgotten.snapshots, 'snapshot')} listed rows of it, and do no more")
    return found + [f"EXPORTED before, and beyond reach: {each}" for each in forgotten.exports]
