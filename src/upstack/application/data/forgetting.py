"""Erasure of a subject wherever it went: contents, what students kept of it, snapshots; and who learned from it.

Contents go with their key. A student keeps numbers and no text, but learned from what is gone: it serves on, marked,
until the next turn of the loop trains another without. Exports are beyond reach; those that held rows of the subject
are named.
"""

from __future__ import annotations

import msgspec

from upstack.application.data.snapshots import Manifest
from upstack.application.proving.pupils import Learnt, without
from upstack.core.store.enrolment import ids_of_subject, rewrite
from upstack.core.store.erasure import Erased, erase_subject
from upstack.core.store.keystore import Keystore
from upstack.core.store.signing import Signer


class Forgotten(msgspec.Struct, frozen=True):
    """What was reached."""

    erased: Erased
    students: tuple[str, ...]  # that learned from it: they are trained anew
    snapshots: int  # that listed rows of it
    exports: tuple[str, ...]  # files outside that hold rows of it


def forget(place: str, keystore: Keystore, signer: Signer, subject: str) -> Forgotten:
    """Erase a subject; again, it finds nothing. Killed in between, it is called again. LedgerError."""
    ids = ids_of_subject(place, subject)
    exports: list[str] = []

    def student(summary: str) -> str | None:
        learnt = msgspec.json.decode(summary, type=Learnt)
        if not ids.intersection(learnt.rows):
            return None
        return msgspec.json.encode(without(learnt, set(learnt.rows) - ids)).decode()

    def snapshot(text: str) -> str | None:
        manifest = msgspec.json.decode(text, type=Manifest)
        there = [row[0] for row in manifest.rows if row[0] in ids]
        if not there and not any(row in ids for row, _ in manifest.dropped):
            return None
        if manifest.exported and there:
            exports.append(manifest.exported)
        rows = tuple(row for row in manifest.rows if row[0] not in ids)
        dropped = tuple(each for each in manifest.dropped if each[0] not in ids)
        gone = manifest.erased + len(manifest.rows) - len(rows)
        return msgspec.json.encode(msgspec.structs.replace(manifest, rows=rows, dropped=dropped, erased=gone)).decode()

    students, snapshots = rewrite(place, student, snapshot, ids) if ids else ((), 0)
    return Forgotten(erase_subject(place, keystore, signer, subject), students, snapshots, tuple(exports))
