"""THE CLOSED LOOP of one task, on one screen: what a ledger holds becomes a student, and a student a plan that serves.

    capture -> curate -> distil -> certify -> promote -> watch -> revoke

Each step is a function of what the ledger holds, and keeps what it made there under the name of what it is: a turn that
is killed anywhere is taken up by the next, which comes to the same. Needs the extra `learn`.
"""

from __future__ import annotations

import math

from msgspec.structs import replace

from upstack.application.data.capture import capture
from upstack.application.data.curate import Curated, curate
from upstack.application.data.rights import Judge
from upstack.application.data.snapshots import Snapshot, freeze
from upstack.application.distilling import Distiller
from upstack.application.learning import Wish
from upstack.application.proving.parts import Parts
from upstack.application.proving.prover import Picture, Prover
from upstack.application.proving.pupils import Pupils
from upstack.core.config.rights import RightsConfig
from upstack.core.config.tables import LoopConfig
from upstack.core.types import Terms, student_of
from upstack.foundation.students.encoder import Encoder, encoder_of, made
from upstack.inference.strategies.plain import Confidence
from upstack.inference.strategies.policy import Policy


class Loop:
    """One task of one ledger. Blocks."""

    def __init__(
        self,
        place: str,
        wish: Wish,
        terms: Terms,
        pupils: Pupils,
        judge: Judge,
        encoder: Encoder | None = None,
        keystore: str | None = None,
        *,
        acts: bool = True,
    ) -> None:
        """`terms`: what is to be proved; the students among its arms are those that there are then.

        Not `acts`: it looks, and changes nothing.
        """
        others = tuple(arm for arm in terms.arms if student_of(arm[0]) is None)
        terms = replace(terms, arms=others)
        self._place, self._wish, self._terms, self._keystore = place, wish, terms, keystore
        self._pupils = pupils
        self._judge = judge
        self._distiller = Distiller(place, wish, pupils, judge, encoder)
        self._prover = Prover(place, keystore, acts=acts, pupils=pupils)
        self._acts = acts
        self._parts = Parts()
        self._curated = Curated((), {}, {})

    def turn(self, now: float) -> Picture:
        """Go round once, at `now` in Unix seconds."""
        if self._acts:
            self._distiller.forbid(now)
        curated = self._curate()
        if self._acts and self._distiller.is_due(curated, now):
            self._distiller.distil(self._freeze(curated, now), now)
        picture = self._prover.look(self._wish.task, self.terms(), now)
        why = picture.why if self._distiller.arms() else self._distiller.why_none(curated)
        return replace(picture, why=why)

    def terms(self) -> Terms:
        """What is to be proved, the students there are among the arms."""
        return replace(self._terms, arms=(*self._terms.arms, *self._distiller.arms()))

    def unproved(self, threshold: float) -> Policy | None:
        """The newest student wherever it is that sure, with nothing proved: for comparison, and never the default."""
        arms = self._distiller.arms()
        return None if not arms else Policy(Confidence(arms[-1][0]), -math.log(threshold))

    def disputed(self) -> list[str]:
        """Rows to learn from of which the newest student says something else than the teacher did."""
        return self._distiller.disputed(self._curated)

    def answers(self, row_id: str, text: str) -> list[str]:
        """What the students that live say to a row."""
        return [self._pupils.answer(student, row_id, text).content or "" for _, student in self._distiller.arms()]

    def curated(self) -> Curated:
        """What there is to learn now."""
        return self._curate()

    def _curate(self) -> Curated:
        rows = capture(self._place, self._wish.task, self._wish.reference, self._keystore)
        self._curated = curate(self._place, self._wish.task, rows, self._parts, self._judge, keep=self._acts)
        return self._curated

    def _freeze(self, curated: Curated, now: float) -> Snapshot:
        return freeze(self._place, self._wish.task, curated, now)


def loop_of(
    place: str,
    wish: Wish,
    terms: Terms,
    config: LoopConfig,
    rights: RightsConfig,
    keystore: str | None,
    *,
    acts: bool = True,
) -> Loop:
    """Make the loop of a task, as it is configured. ConfigError where its encoder cannot be read.

    Not `acts`: it looks, and changes nothing.
    """
    encoder = None if config.encoder is None else made(config.encoder)
    pupils = Pupils(place, config.usd_per_hour / 3600, lambda digest: encoder_of(config.encoder, digest))
    return Loop(place, wish, terms, pupils, Judge(place, rights), encoder, keystore, acts=acts)
