"""Frozen sets of rows: what a student learned from, named by what it is."""

from __future__ import annotations

import hashlib

import msgspec

from upstack import __version__
from upstack.application.data.curate import Curated
from upstack.core.store.enrolment import keep_snapshot
from upstack.core.store.rows import moment
from upstack.core.store.students import SnapshotRow
from upstack.foundation.rights import Facts
from upstack.inference.distill.lessons import Lesson


class Manifest(msgspec.Struct, frozen=True):
    """What is in a snapshot."""

    task: str
    rows: tuple[tuple[str, str, int], ...]  # id, digest of what it teaches, place of its rights in `rights`
    rights: tuple[Facts, ...]  # that rows have
    dropped: tuple[tuple[str, str], ...]  # id, why
    code: str  # version of this program
    exported: str = ""  # where to, of one that was exported
    erased: int = 0  # rows that were listed, and are gone


class Snapshot(msgspec.Struct, frozen=True):
    """A manifest, and the lessons that it lists."""

    id: str
    lessons: tuple[Lesson, ...]
    rights: tuple[Facts, ...]


def freeze(place: str, task: str, curated: Curated, now: float, exported: str = "") -> Snapshot:
    """Keep what there is to learn now; `exported`: where it goes to, where it does."""
    known = {own_id: msgspec.structs.replace(facts, subject="") for own_id, facts in curated.facts.items()}
    places = {facts: at for at, facts in enumerate(dict.fromkeys(known.values()))}
    manifest = Manifest(
        task,
        tuple((each.id, _digest(each), places[known[each.id]]) for each in curated.lessons),
        tuple(places),
        tuple(sorted(curated.dropped.items())),
        __version__,
        exported,
    )
    text = msgspec.json.encode(manifest)
    own_id = hashlib.sha256(text).hexdigest()
    keep_snapshot(place, SnapshotRow(own_id, task, moment(now), text.decode()))
    return Snapshot(own_id, curated.lessons, tuple(places))


def _digest(lesson: Lesson) -> str:
    return hashlib.sha256(msgspec.json.encode(lesson)).hexdigest()[:16]
