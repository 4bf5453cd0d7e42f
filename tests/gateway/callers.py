"""Callers that ask without a pause, for tests of what happens under load."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Self

COUNT = 8


class Callers(ABC):
    """Threads that each `run` until `stopping` is set, at the end of the block."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._threads = [threading.Thread(target=self.run, args=(number,)) for number in range(COUNT)]

    @abstractmethod
    def run(self, number: int) -> None:
        """Ask until it is time to stop."""

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()
