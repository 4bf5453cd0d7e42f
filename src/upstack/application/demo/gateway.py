"""The real gateway in a process of its own, for as long as the demo needs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Self

from upstack.core.errors import UpstackError

_LISTENING = re.compile(r"listening on (http://\S+)/v1")
_START_S = 120.0  # a large recorded file takes a while to load
_STOP_S = 15.0
# What a gateway that asks nobody outside may know of this environment: neither keys nor proxies.
_KEPT = re.compile(r"(LD_LIBRARY_)?PATH|HOME|LANG|LC_.*|TMPDIR|TZ|PYTHON.*|VIRTUAL_ENV|COVERAGE_.*")


class DemoGateway:
    """Runs `command`, which is `upstack serve` with its flags; a context manager.

    `url` is its base, without /v1, once `wait` has returned.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str] = os.environ) -> None:
        self._command = list(command)
        self._environ = {name: value for name, value in environ.items() if _KEPT.fullmatch(name)}
        self._process: subprocess.Popen[str] | None = None
        self._said: list[str] = []
        self._listening = threading.Event()  # it listens, or has ended
        self.url = ""

    def __enter__(self) -> Self:
        # A group of its own: Ctrl-C is for the demo, which then stops the gateway once and properly.
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environ,
            process_group=0,
        )
        assert self._process.stderr is not None  # noqa: S101 - for mypy: it was asked for
        threading.Thread(target=self._read, args=(self._process.stderr,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def last_words(self) -> str:
        """The last line it wrote, without its name before it."""
        return self._said[-1].removeprefix("upstack: ") if self._said else "it said nothing"

    def stop(self) -> None:
        """Stop it properly, or by force where that takes too long. Harmless when it has stopped."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait(self) -> None:
        """Wait until it listens; UpstackError with its last words where it does not come to that."""
        deadline = time.monotonic() + _START_S
        while not self.url and time.monotonic() < deadline:
            if self._listening.wait(0.1) and not self.url:
                break
        if not self.url:
            raise UpstackError(f"the gateway did not start: {self.last_words}")

    def _read(self, stream: IO[str]) -> None:
        """Keep its last lines, and find the one that says where it listens."""
        for line in stream:
            found = _LISTENING.search(line)
            if found:
                self.url = found[1]
                self._listening.set()
            if line.strip():
                self._said = [*self._said[-20:], line.strip()]
        self._listening.set()
