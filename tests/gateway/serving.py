"""A real gateway in a process of its own, for tests."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from tests import plain
from tests.canaries import CANARY
from upstack.application.gateway.gateway import Gateway
from upstack.application.gateway.limits.meters import Meters
from upstack.core.clock import SystemClock
from upstack.core.config import Config
from upstack.core.slots import Slots, make_memory
from upstack.core.store.base import Ledger
from upstack.core.store.ids import ReceiptIds
from upstack.core.types import State
from upstack.foundation.backends.base import Backend

SRC = Path(__file__).resolve().parents[2] / "src"
_LISTENING = re.compile(r"listening on http://[\d.]+:(\d+)/v1")
_SECRETS = re.compile(r"(_API_KEY|_BASE_URL|_HOST|_ENDPOINT|_proxy)$", re.IGNORECASE)


def clean_environ(**extra: str) -> dict[str, str]:
    """This process's environment without anything a gateway would pick up."""
    kept = {name: value for name, value in os.environ.items() if not _SECRETS.search(name)}
    return {**kept, "PYTHONPATH": str(SRC), "PYTHONUNBUFFERED": "1", "CANARY_KEY": CANARY, **extra}


class Serving:
    """`upstack serve` with a configuration of its own in `folder`; a context manager.

    `port` 0 picks a free one. `log` is what the process wrote so far.
    """

    def __init__(self, folder: Path, config: str, *flags: str, port: int = 0, env: Mapping[str, str] = {}) -> None:
        self.folder = folder
        self.ledger = folder / "upstack.db"
        self.config = folder / "upstack.toml"
        self.config.write_text(config)
        self._log = folder / "serve.log"
        self._flags = flags
        self._wanted = port
        self._env = env
        self.port = 0
        self.process: subprocess.Popen[bytes]

    def start(self) -> Self:
        """Start and wait until it listens."""
        command = [sys.executable, "-m", "upstack.cli", "serve", "--config", str(self.config)]
        command += ["--ledger", str(self.ledger), "--port", str(self._wanted), *self._flags]
        seen = len(self.log)
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=clean_environ(**self._env), cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = _LISTENING.search(self.log[seen:])
            if found:
                self.port = int(found[1])
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        self.process.kill()
        self.process.wait(20)
        raise AssertionError(f"the gateway did not start:\n{self.log}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)

    @property
    def writer(self) -> int:
        """The process id of its ledger's writer, the only child it has."""
        pid = self.process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(child)

    def kill(self, *, writer: bool = False) -> None:
        """kill -9 of the gateway; its writer lives on until it has written what it was given, unless it is hit too."""
        if writer:
            os.kill(self.writer, signal.SIGKILL)
        self.process.kill()
        self.process.wait(20)

    @property
    def log(self) -> str:
        """Everything it wrote to its standard streams."""
        return self._log.read_text() if self._log.exists() else ""

    @property
    def url(self) -> str:
        """Its base, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def post(self, body: Any, **headers: str) -> httpx2.Response:
        """One chat completion, plain."""
        return plain.post(f"{self.url}/v1/chat/completions", json=body, headers=headers, timeout=30)

    def get(self, path: str) -> httpx2.Response:
        """One GET."""
        return plain.get(self.url + path, timeout=30)

    def receipt(self, receipt_id: str) -> dict[str, Any]:
        """A receipt as the endpoint gives it."""
        answer = self.get(f"/v1/receipts/{receipt_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the ledger, read beside the running gateway."""
        with contextlib.closing(sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True, timeout=10)) as database:
            return database.execute(query).fetchall()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop()
        if kind is not None:
            sys.stderr.write(f"--- the gateway's log ---\n{self.log[-4000:]}\n")


def chat(model: str, text: str = "one two three", **members: Any) -> dict[str, Any]:
    """A request body."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **members}


def provider(name: str, base_url: str, extra: str = "") -> str:
    """A provider's table, with a key that must not show anywhere, and with short timeouts."""
    key = "" if "api_key" in extra or "auth" in extra else 'api_key = "env:CANARY_KEY"\n'
    return (
        f'[providers.{name}]\nbase_url = "{base_url}"\n{key}{extra}\n'
        f"[providers.{name}.timeouts]\nconnect = 1\nfirst_byte = 1\nbetween_bytes = 1\ntotal = 20\n"
    )


def make_gateway(config: Config, state: State, ledger: Ledger, backends: Mapping[str, Backend] = {}) -> Gateway:
    """A gateway in the test's own process."""
    return Gateway(
        config,
        state,
        ledger,
        backends,
        no_limits(config),
        clock=SystemClock(),
        new_id=ReceiptIds(),
        rng=random.Random(1),
    )


def no_limits(config: Config) -> Meters:
    """What limits the requests of a gateway made in the test's own process."""
    return Meters(config, {}, Slots(make_memory(1), 1), {})
