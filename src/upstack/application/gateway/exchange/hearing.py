"""Hands on what a provider sends to an attempt that is asked for a decision, until it has answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from upstack.application.gateway.exchange.trial import Trial
from upstack.core.errors import SupplyError

if TYPE_CHECKING:
    from upstack.foundation.backends.base import Receiver


class Hearing:
    """The receiver of one attempt. Its stream may linger, which is not the next attempt's concern."""

    __slots__ = ("_receiver", "_trial")

    def __init__(self, receiver: Receiver, trial: Trial) -> None:
        self._receiver, self._trial = receiver, trial

    def on_head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        """Hand on the head."""
        self._receiver.on_head(status, headers)

    def on_body(self, data: bytes) -> None:
        """Hand on a piece of the body."""
        if self._trial.place < 0:
            self._receiver.on_body(data)

    def on_end(self) -> None:
        """Hand on the end."""
        if self._trial.place < 0:
            self._receiver.on_end()

    def on_failure(self, error: SupplyError) -> None:
        """Hand on that the call broke."""
        if self._trial.place < 0:
            self._receiver.on_failure(error)
