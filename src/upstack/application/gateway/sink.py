"""Who takes an answer for the caller."""

from __future__ import annotations

from typing import Protocol


class Sink(Protocol):
    """Who takes the answer: the hot path's connection, or an ASGI `send`.

    Either `respond` once, or `open`, `write`*, `close`. Headers are lines, each with its CRLF, without framing. A sink
    whose caller has left ignores all of them. `paused`: its caller does not read what was sent.
    """

    @property
    def paused(self) -> bool:
        """Whether more should wait; the sink calls `Exchange.pause` and `resume` when that changes."""
        ...

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """Send a whole answer."""
        ...

    def open(self, headers: bytes, data: bytes) -> None:
        """Start a stream (status 200) with its first events."""
        ...

    def write(self, data: bytes) -> None:
        """Send further events."""
        ...

    def close(self, data: bytes, *, clean: bool) -> None:
        """Send the last events; not `clean`: break the connection, so that nobody takes it for the end."""
        ...
