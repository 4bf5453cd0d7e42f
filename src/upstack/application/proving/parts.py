"""Which checks are learned from and which are evidence: decided once, at first sight, and kept."""

from __future__ import annotations

from collections.abc import Sequence

from upstack.core.store.checks import Part
from upstack.inference.clusters import clusters, place_of
from upstack.inference.proof import FIT_SHARE


def decide(rows: Sequence[tuple[str, str, bool]], known: Sequence[Part]) -> list[Part]:
    """Decide for the rows that are new: id, prompt, and whether the coin fell. They stand in the order of their ids.

    What is nearly the same as an earlier one goes where that went; of evidence the first alone counts. What is no check
    is learned from, whatever it looks like: its coin decided that.
    """
    parts = {each.id: each for each in known}
    taken = {each.cluster for each in known if each.part == "evidence"}
    texts = [text for _, text, _ in rows]
    leaders: dict[int, Part] = {}  # by root of the clusters that there are now: the first of its members
    found: list[Part] = []
    for (row_id, text, check), root in zip(rows, clusters(texts), strict=True):
        part = parts.get(row_id)
        if part is None:
            part = _part(row_id, text, leaders.get(root), taken, check=check)
            found.append(part)
            if part.part == "evidence":
                taken.add(part.cluster)
        leaders.setdefault(root, part)
    return found


def _part(row_id: str, text: str, leader: Part | None, taken: set[str], *, check: bool) -> Part:
    if leader is None:
        return Part(row_id, row_id, "evidence" if check and place_of(text, 0) >= FIT_SHARE else "fit")
    if leader.part == "fit":
        return Part(row_id, leader.cluster, "fit")
    return Part(row_id, leader.cluster, "repeat" if leader.cluster in taken or not check else "evidence")
