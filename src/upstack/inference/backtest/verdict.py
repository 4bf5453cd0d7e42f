"""What a backtest says, as values."""

from __future__ import annotations

import msgspec


class Side(msgspec.Struct, frozen=True):
    """What a policy cost and lost on the test rows."""

    cost_usd: float
    loss: float | None  # mean of the labelled rows, 0 to 1; None where there are none


class Policy(msgspec.Struct, frozen=True):
    """The plan that serves."""

    strategy: str  # "reference": nothing is done
    cost_usd: float
    loss: float | None
    routes: tuple[str, ...]  # in the order they are asked; the reference is last
    threshold: float | None = None  # of the score above which it escalates
    escalated: float = 0.0  # share of the test rows


class Tried(msgspec.Struct, frozen=True):
    """A plan that was considered, with what the rows say that it was judged by."""

    strategy: str
    routes: tuple[str, ...]
    threshold: float | None
    cost_ratio: float
    excess_loss: float
    low: float  # of the excess loss, with the confidence asked for
    high: float
    judged_on: str  # "fit" or "evidence"
    proved: bool = False
    checks_left: int | None = None  # until it would be proved, if it goes on so; None: not in sight


class Assumed(msgspec.Struct, frozen=True):
    """What was never measured: requests that were no checks, taken to be like those that were."""

    requests: int
    reference_usd: float
    policy_usd: float


class Verdict(msgspec.Struct, frozen=True):
    """One task, or the sum of several. Losses lie in 0 to 1, excesses in -1 to 1, ratios: of the reference's cost."""

    reference: Side
    policy: Policy
    cost_ratio: float  # on the test rows
    cost_ratio_all_in: float  # with what calibration asked
    excess_loss: float  # on the test rows
    excess_loss_interval: tuple[float, float]  # holds however often it is looked at
    certified: bool
    n_fit: int
    n_evidence: int
    n_test: int
    measured_share: (
        float  # of the test rows whose losses are known; of the others every difference is assumed to be one
    )
    seed: int
    why: str | None = None  # nothing is certified
    way_on: str | None = None  # the cheapest
    grader: str | None = None
    labelled_share: float = 1.0  # of the rows; others count every difference from the reference as a loss
    noise_floor: float | None = None  # how often the reference differs from itself, where it was asked again
    left_out: int = 0  # rows that lack answers
    left_out_candidates: tuple[str, ...] = ()  # that most rows lack
    tried: tuple[Tried, ...] = ()
    assumed: Assumed | None = None  # of a ledger
