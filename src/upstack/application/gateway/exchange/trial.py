"""One attempt under way: what came of it so far."""

from __future__ import annotations

from collections.abc import Mapping

from upstack.application.gateway.dialects.chat_stream import ChatStream
from upstack.core.types import Attempt, Target, Usage
from upstack.inference.cost import cost

_NO_HEADERS: Mapping[bytes, bytes] = {}


class Trial:
    """Keeps what a provider sends to one attempt. Times are monotonic seconds."""

    __slots__ = ("began", "body", "first_byte", "head", "index", "kept", "place", "size", "status", "stream", "target")

    def __init__(self, target: Target, index: int, began: float) -> None:
        """`index` among the plan's targets; of an arm, which is asked for a decision, ~index."""
        self.target = target
        self.index = index
        self.began = began
        self.status: int | None = None
        self.head = _NO_HEADERS
        self.first_byte: float | None = None
        self.body: list[bytes] = []
        self.size = 0
        self.stream: ChatStream | None = None
        self.kept: list[bytes] = []  # of a stream, until it is decided whether it goes out
        self.place = -1  # among the attempts of its request, once it has answered

    @property
    def usage(self) -> Usage | None:
        """What a stream has said of it."""
        return None if self.stream is None else self.stream.usage

    def whole(self) -> bytes:
        """The body of an answer that is not streamed."""
        return self.body[0] if len(self.body) == 1 else b"".join(self.body)

    def record(self, since: float, now: float, failure: str | None, usage: Usage | None, *, billed: bool) -> Attempt:
        """Make the record; `since`: when the request came in. Not `billed`: it costs nothing, for sure."""
        route = self.target.route
        duration = now - self.began
        return Attempt(
            route.name,
            route.provider.name,
            route.model,
            route.version,
            self.target.credential,
            self.status,
            failure,
            self.began - since,
            None if self.first_byte is None else self.first_byte - self.began,
            duration,
            usage,
            None if route.price is None else route.price.version,
            cost(usage, route.price, duration) if billed else 0,
        )
