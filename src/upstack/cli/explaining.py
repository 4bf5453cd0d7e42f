"""`upstack why`: a receipt in words, read from the ledger's file beside whoever writes it."""

from __future__ import annotations

from pathlib import Path

from upstack.application.gateway.explain import explain
from upstack.cli.options import read
from upstack.cli.output import print_json, say
from upstack.core.errors import RequestError
from upstack.core.store.reading import list_receipts, read_receipt
from upstack.core.types import Receipt

LAST = "last"
NOT_FOUND = "receipt_not_found"


def run(wanted: str, ledger: Path | None, config: Path | None, *, as_json: bool) -> None:
    """Print the receipt; RequestError where there is none."""
    path = str(ledger) if ledger is not None else read(config).server.ledger
    whole = explain(_find(wanted, path))
    if as_json:
        print_json(whole)
        return
    say(whole["id"], style="bold")
    for sentence in whole["words"]:
        say(sentence)


def _find(wanted: str, path: str) -> Receipt:
    if wanted == LAST:
        newest = list_receipts(path, 1)  # without request and answer
        if not newest:
            raise RequestError(f"{path} has no receipts yet; ask something first", code=NOT_FOUND)
        wanted = newest[0].id
    found = read_receipt(path, wanted)
    if found is None:
        raise RequestError(f'{path} has no receipt "{wanted}"; `upstack why last` shows the newest', code=NOT_FOUND)
    return found
