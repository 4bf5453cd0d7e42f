"""What may be done with captured rows: what was said where they came in, judged under this deployment's profile.

Nothing that follows from it is kept: where the table of texts or the profile changes, so does every answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from upstack.application.data.capture import Captured
from upstack.application.data.importers.exchange import SAID, said_of
from upstack.core.config.rights import RightsConfig, SaidConfig
from upstack.core.store.rights import rights_said
from upstack.foundation.rights import Facts, Rights, judge, table_of, together, version_of

_NOTHING = SaidConfig()


class Judge:
    """Judges the rows of one ledger under one profile."""

    def __init__(self, place: str, profile: RightsConfig) -> None:
        self._place, self._profile = place, profile
        self._table = table_of(profile)
        self._found: dict[Facts, Rights] = {}

    @property
    def version(self) -> str:
        """Names what is judged by: it differs where anything of it does."""
        return version_of(self._table, self._profile)

    def said(self, task: str) -> Mapping[str, Mapping[str, Any]]:
        """What was said of the rows of a task where they came in, by receipt."""
        return {own_id: said_of(msgspec.json.decode(said)) for own_id, said in rights_said(self._place, task).items()}

    def facts(self, row: Captured, said: Mapping[str, Any]) -> Facts:
        """What is known of a row. What people said of it needs no model's permission."""
        taught = row.truth is None and row.teacher is not None
        usual = self._profile.tasks.get(row.task, _NOTHING)
        found = {name: str(said.get(name) or getattr(usual, name)) for name in SAID}
        if taught and not found["licence"]:
            found["licence"] = self._profile.weights.get(row.provider, "")
        return Facts(
            provider=row.provider if taught else "",
            model=row.model if taught else "",
            day=datetime.fromtimestamp(row.at, UTC).date() if taught and row.at else None,
            subject=row.subject or "",
            **found,
        )

    def student(self, taught: Iterable[Facts]) -> Rights:
        """What may be done with a student of such rows: the AND of what may be done with each, and all that is owed."""
        return together(self.of(each) for each in taught)

    def of(self, facts: Facts) -> Rights:
        """What may be done. Many rows are alike, so that what was found is remembered."""
        alike = msgspec.structs.replace(facts, subject="")
        found = self._found.get(alike)
        if found is None:
            found = self._found[alike] = judge(facts, self._table, self._profile)
        return found


def may_teach(facts: Facts, rights: Rights) -> str | None:
    """Why a row may not be learned from; None where it may."""
    if not rights.may_train:
        return rights.reasons["train"]
    if facts.provider and not rights.may_distil:
        return rights.reasons["distil"]
    return None
