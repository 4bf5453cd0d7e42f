"""A call in flight: its receiver, its deadlines, and whatever holds it at the moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from upstack.core.errors import Failure, SupplyError
from upstack.core.types import Timeouts
from upstack.foundation.backends.base import Receiver


class Link(Protocol):
    """What holds a call: the pool while it waits for a connection, then the connection."""

    def drop(self, call: HttpCall) -> None:
        """Let go of a call that ends before its answer does."""
        ...

    def pause(self) -> None:
        """Stop reading."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...


class _Nobody:
    """Takes the place of the receiver of a call that is over."""

    def on_head(self, status: int, headers: Mapping[bytes, bytes]) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_failure(self, error: SupplyError) -> None: ...


_NOBODY: Receiver = _Nobody()


class HttpCall:
    """One request and who waits for its answer. Times are those of the sweeper's clock, in seconds."""

    __slots__ = (
        "book",
        "ends",
        "expires",
        "link",
        "moved",
        "paused",
        "phase",
        "receiver",
        "timeouts",
        "unheard",
        "where",
    )

    def __init__(self, book: set[HttpCall], where: str, timeouts: Timeouts, receiver: Receiver, now: float) -> None:
        """Enter the call in `book`, which lists all calls in flight; `where` is for messages.

        Whoever makes it sets `link`, `phase` and `expires`.
        """
        self.book = book
        self.where = where
        self.timeouts = timeouts
        self.receiver = receiver  # _NOBODY: the call is over
        self.link: Link | None
        self.phase: Failure  # what it is when `expires` has come
        self.expires: float
        self.ends = now + timeouts.total
        self.moved = False  # bytes of the body came since the last sweep
        self.paused = False
        self.unheard = False
        book.add(self)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be delivered."""
        return self.receiver is _NOBODY

    def finish(self) -> Receiver:
        """End the call; give the receiver that is to be told, which does nothing if the call was over already."""
        receiver = self.receiver
        # Receivers usually hold their call. Without this each request would leave a cycle to the garbage collector.
        self.receiver = _NOBODY
        self.link = None
        self.book.discard(self)
        return receiver

    def fail(self, error: SupplyError) -> None:
        """End the call with an error, wherever it is. Harmless when it is over."""
        link, receiver = self.link, self.finish()
        if link is not None:
            link.drop(self)
        receiver.on_failure(error)

    def cancel(self) -> None:
        """Stop at once: the connection is closed, nothing more is delivered. Harmless when it is over."""
        link = self.link
        self.finish()
        if link is not None:
            link.drop(self)

    def pause(self) -> None:
        """Stop reading from the provider."""
        if not self.paused:
            self.paused = True
            if self.link is not None:
                self.link.pause()

    def resume(self) -> None:
        """Read on."""
        if self.paused:
            self.paused = False
            if self.link is not None:
                self.link.resume()
