"""Which checks are learned from and which are evidence: decided once, at first sight, and kept."""

from __future__ import annotations

from collections.abc import Sequence

from upstack.core.store.checks import Part
from upstack.inference.clusters import Clusters, place_of

FIT_SHARE = 0.3  # of the clusters of checks, to learn from and to choose plans by


class Parts:
    """Decides of one task's rows, in the order of their ids: again and again the same."""

    def __init__(self) -> None:
        """Nothing has been looked at."""
        self._clusters = Clusters()
        self._leaders: dict[int, Part] = {}  # by cluster: what was decided of its first
        self._taken: set[str] = set()
        self._seen: list[str] = []

    def decide(self, rows: Sequence[tuple[str, str, bool]], known: Sequence[Part]) -> list[Part]:
        """Decide for the rows that are new: id, prompt, whether the coin fell. They stand in the order of their ids.

        What is nearly the same as an earlier one goes where that went; of evidence the first alone counts. What is no
        check is learned from, whatever it looks like: its coin decided that.
        """
        if [row_id for row_id, _, _ in rows[: len(self._seen)]] != self._seen:  # one came late, or is gone
            self.__init__()  # type: ignore[misc]
        parts = {each.id: each for each in known}
        found: list[Part] = []
        for row_id, text, check in rows[len(self._seen) :]:
            root = self._clusters.add(text)
            part = parts.get(row_id)
            if part is None:
                part = _part(row_id, text, self._leaders.get(root), self._taken, check=check)
                found.append(part)
            if part.part == "evidence":
                self._taken.add(part.cluster)
            self._leaders.setdefault(root, part)
            self._seen.append(row_id)
        return found


def _part(row_id: str, text: str, leader: Part | None, taken: set[str], *, check: bool) -> Part:
    if leader is None:
        return Part(row_id, row_id, "evidence" if check and place_of(text, 0) >= FIT_SHARE else "fit")
    if leader.part == "fit":
        return Part(row_id, leader.cluster, "fit")
    return Part(row_id, leader.cluster, "repeat" if leader.cluster in taken or not check else "evidence")
