"""The demo's receipts, read back from the ledger's file beside the gateway that writes it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from upstack.core.store.reading import list_receipts
from upstack.core.types import Receipt

_PAGE = 1000


def receipts_of(path: Path | str, ids: Collection[str]) -> dict[str, Receipt]:
    """Find the receipts with these ids, newest first, without request and answer; the ledger may hold others too."""
    wanted = {each for each in ids if each}
    found: dict[str, Receipt] = {}
    before = None
    while len(found) < len(wanted):
        page = list_receipts(path, _PAGE, before)
        found |= {receipt.id: receipt for receipt in page if receipt.id in wanted}
        # Ids are in order of time: what is older than the oldest wanted one is not ours.
        if len(page) < _PAGE or page[-1].id < min(wanted):
            break
        before = page[-1].id
    return found
