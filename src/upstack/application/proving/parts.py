"""Which checks are learned from and which are evidence: decided once, at first sight, and kept."""

from __future__ import annotations

from collections.abc import Sequence

from upstack.core.store.checks import Part
from upstack.core.traffic import TrafficRow, prompt_of
from upstack.inference.clusters import clusters, place_of
from upstack.inference.proof import FIT_SHARE


def decide(rows: Sequence[TrafficRow], known: Sequence[Part]) -> list[Part]:
    """Decide for the rows that are new. They stand in the order of their ids, as what is `known` does.

    What is nearly the same as an earlier one goes where that went; of evidence the first alone counts.
    """
    parts = {each.id: each for each in known}
    taken = {each.cluster for each in known if each.part == "evidence"}
    texts = [prompt_of(row) for row in rows]
    leaders: dict[int, Part] = {}  # by root of the clusters that there are now: the first of its members
    found: list[Part] = []
    for row, text, root in zip(rows, texts, clusters(texts), strict=True):
        part = parts.get(row.id)
        if part is None:
            part = _part(row.id, text, leaders.get(root), taken)
            found.append(part)
            if part.part == "evidence":
                taken.add(part.cluster)
        leaders.setdefault(root, part)
    return found


def _part(row_id: str, text: str, leader: Part | None, taken: set[str]) -> Part:
    if leader is None:
        return Part(row_id, row_id, "fit" if place_of(text, 0) < FIT_SHARE else "evidence")
    if leader.part == "fit":
        return Part(row_id, leader.cluster, "fit")
    return Part(row_id, leader.cluster, "repeat" if leader.cluster in taken else "evidence")
