"""`upstack why`: a receipt in words, read from the ledger beside whoever writes it."""

from __future__ import annotations

import time
from pathlib import Path

from upstack.application.gateway.explain import explain, maturity_of
from upstack.cli.options import keystore_of, ledger_of, read
from upstack.cli.output import print_json, say
from upstack.core.errors import RequestError
from upstack.core.store.outcomes import outcomes_of
from upstack.core.store.places import shown
from upstack.core.store.reading import last_asked, read_receipt
from upstack.core.types import Receipt

LAST = "last"
NOT_FOUND = "receipt_not_found"


def run(wanted: str, ledger: str | None, config: Path | None, *, as_json: bool) -> None:
    """Print the receipt; RequestError where there is none."""
    place = ledger_of(ledger, config)
    keystore = keystore_of(ledger, config)
    found = _find(wanted, place, keystore)
    named = ledger is not None and config is None  # another's, whose tasks are not known here
    maturity = 0.0 if named else maturity_of(read(config), found)
    whole = explain(found, outcomes_of(place, found, keystore), maturity, time.time())
    if as_json:
        print_json(whole)
        return
    say(whole["id"], style="bold")
    for sentence in whole["words"]:
        say(sentence)


def _find(wanted: str, place: str, keystore: str | None) -> Receipt:
    if wanted == LAST:
        newest = last_asked(place)
        if newest is None:
            raise RequestError(f"{shown(place)} has no receipts yet; ask something first", code=NOT_FOUND)
        wanted = newest
    found = read_receipt(place, wanted, keystore)
    if found is None:
        raise RequestError(
            f'{shown(place)} has no receipt "{wanted}"; `upstack why last` shows the newest', code=NOT_FOUND
        )
    return found
