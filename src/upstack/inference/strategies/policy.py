"""A plan as it is proved, kept and served: a strategy, and the score up to which its proposals are trusted."""

from __future__ import annotations

import msgspec

from upstack.inference.strategies.base import Ask, Seen, Serve, Take, next_step
from upstack.inference.strategies.learned import Cascade, Precall
from upstack.inference.strategies.plain import Agree, Confidence, Single


class Policy(msgspec.Struct, frozen=True):
    """What an evidence row is held against. Its bytes are what a certificate is of."""

    strategy: Single | Agree | Confidence | Cascade | Precall
    threshold: float

    @property
    def kind(self) -> str:
        """The strategy's name."""
        return type(self.strategy).__name__.lower()

    @property
    def learns(self) -> bool:
        """Whether its score was learned, and takes a few milliseconds."""
        return isinstance(self.strategy, Cascade | Precall)

    @property
    def trusts_all(self) -> bool:
        """Whether it serves whatever its only arm says: nothing is to be decided then."""
        return isinstance(self.strategy, Single)

    def step(self, reference: str, seen: Seen) -> Ask | Take | Serve:
        """Say what is next, by what has been seen."""
        return next_step(self.strategy, self.threshold, reference, seen)

    def words(self) -> str:
        """Tell what it does."""
        arms = self.strategy.arms
        names = " and ".join(arms)
        match self.strategy:
            case Single():
                return names
            case Agree():
                third = f"; {arms[2]} decides where they differ" if len(arms) > 2 and self.threshold >= 1 else ""
                return f"{' and '.join(arms[:2])} where they say the same{third}"
            case Precall():
                return f"{names} where the request looks easy enough"
            case _:
                return f"{names} where the answer looks right"


class _Path(msgspec.Struct, frozen=True, array_like=True):
    """Policies that differ in their thresholds: what a strategy learned is kept once."""

    strategy: Single | Agree | Confidence | Cascade | Precall
    thresholds: list[float]


_decoder = msgspec.msgpack.Decoder(list[_Path])


def to_bytes(policies: list[Policy]) -> bytes:
    """Write policies so that they can be kept."""
    paths: list[_Path] = []
    for each in policies:
        if not paths or paths[-1].strategy is not each.strategy:
            paths.append(_Path(each.strategy, []))
        paths[-1].thresholds.append(each.threshold)
    return msgspec.msgpack.encode(paths)


def from_bytes(data: bytes) -> list[Policy]:
    """Read what `to_bytes` wrote."""
    return [Policy(path.strategy, threshold) for path in _decoder.decode(data) for threshold in path.thresholds]
