"""What is asked of a backtest. Imports nothing that takes long."""

from __future__ import annotations

import msgspec

STRATEGIES = ("auto", "single", "agree", "cascade", "confidence", "precall")


class Wanted(msgspec.Struct, frozen=True):
    """What is to be tried, and what is to be proved."""

    strategy: str = "auto"
    max_loss: float = 0.02  # epsilon: tolerated excess loss
    confidence: float = 0.95  # 1 - delta
    calibrate: float = 0.5  # share of the rows that are learned from or are evidence
    seed: int = 0
    certified: bool = True
