"""From checks to excesses: what a request whose coin fell says about a plan. Pure.

One coin a request, with the same chance for the whole certificate, is tossed and logged before the plan runs. Where it
fell, all arms are asked, and the request counts: escalated or not, labelled or not, in the order of the requests. To
leave any of them out, or to take in others, promotes what is not good enough.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Check(msgspec.Struct, frozen=True):
    """One request whose coin fell, and what is known of it by now. Losses lie in 0 to 1."""

    escalated: bool = False  # the plan itself went on to the reference
    same: bool = False  # the grader takes the plan's answer and the reference's for the same
    plan_loss: float | None = None  # by a label; None: there is none, or not yet
    reference_loss: float | None = None


def excess_of(check: Check, most: float = 1.0) -> float:
    """How much worse the plan was, in [-most, most].

    Nothing where both gave the same: that needs no label. A disagreement that nobody has judged stands at `most`: if
    good ones counted at once and bad ones late, or never, a plan would look better than it is.
    """
    if check.escalated or check.same:
        return 0.0
    if check.plan_loss is None or check.reference_loss is None:
        return most
    return check.plan_loss - check.reference_loss


def excesses(checks: Iterable[Check], *, labelled: bool = True, most: float = 1.0) -> list[float]:
    """The excess of each, in their order. Not `labelled`: without any labels every disagreement counts in full."""
    if labelled:
        return [excess_of(check, most) for check in checks]
    return [0.0 if check.escalated or check.same else most for check in checks]


def judged(verdict: float, label_rate: float, label: float | None) -> float:
    """An excess by a judge, put right by the labels of a coin: H = m + (Y - m) / p where it fell, else m.

    `verdict` m is the judge's excess, `label` Y a human's where the coin of chance `label_rate` p fell, else None.
    On average H is Y, however wrong the judge is: Angelopoulos et al., Prediction-powered inference, Science 382, 2023.
    """
    if not 0.0 < label_rate <= 1.0:
        raise ValueError(f"a label rate of {label_rate}: without a coin a judge's word is no evidence")
    return verdict if label is None else verdict + (label - verdict) / label_rate


def most_judged(label_rate: float, most: float = 1.0) -> float:
    """The bound of what `judged` gives, on both sides, where verdicts and labels lie in [-most, most]."""
    return most * (2.0 / label_rate - 1.0)
