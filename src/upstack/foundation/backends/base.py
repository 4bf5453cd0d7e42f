"""What a backend is: the code that calls a route. Backends do not know each other.

A call is driven by callbacks, not awaited: on the hot path a coroutine per request would cost more than everything
else together. All of it happens on one event loop; no callback may block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from upstack.core.errors import SupplyError
from upstack.core.types import Request, Target


class Receiver(Protocol):
    """Who gets the answer. Called in order: `on_head`, `on_body`*, then `on_end` or `on_failure`, once.

    `on_failure` may also come first or instead. Nothing comes after `on_end`, `on_failure` or `Call.cancel()`.
    None of them is called before `Backend.send` has returned.
    """

    def on_head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        """Take the status line and headers (names in lower case; the last of repeated ones wins)."""
        ...

    def on_body(self, data: bytes) -> None:
        """Take the next bytes of the body, transfer and content codings removed."""
        ...

    def on_end(self) -> None:
        """The body is whole."""
        ...

    def on_failure(self, error: SupplyError) -> None:
        """The call broke; no more comes. `error.failure` says how."""
        ...


class Call(Protocol):
    """A call in flight."""

    unheard: bool  # set by the receiver: what comes says nothing yet, and does not end the wait for the first byte

    def cancel(self) -> None:
        """Stop at once: the connection is closed, nothing more is delivered. Harmless when it is over."""
        ...

    def pause(self) -> None:
        """Stop reading from the provider, as the caller does not read (back-pressure)."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...


class Backend(Protocol):
    """Sends requests to routes of one kind."""

    def send(self, target: Target, request: Request, receiver: Receiver) -> Call:
        """Start one attempt. Never raises for the provider's faults: those go to `receiver.on_failure`."""
        ...

    async def close(self) -> None:
        """Close idle connections; calls in flight are cancelled."""
        ...
