"""The command line in a process of its own, as a shell would call it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.canaries import CANARY

SRC = Path(__file__).resolve().parents[2] / "src"
COMMAND = [sys.executable, "-m", "upstack.cli"]


class Done(NamedTuple):
    """How a call ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """The error of a call with `--json`: standard error as one line of JSON."""
        assert len(self.err.splitlines()) == 1, self.err
        return json.loads(self.err)["error"]

    def failed(self, code: int, *words: str) -> Self:
        """Assert that it ended with `code` and one line that holds `words`, and nothing else on standard error."""
        assert self.code == code, self
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("upstack: "), self.err
        for word in words:
            assert word in lines[0], lines[0]
        return self


def environ(**extra: str) -> dict[str, str]:
    """An environment without proxies, terminals and keys, but for that of `tests.gateway.serving.provider`."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(SRC), "LANG": "C.UTF-8", "CANARY_KEY": CANARY, **extra}


def call(*arguments: str, cwd: Path, stdin: str = "", **extra: str) -> Done:
    """Call `upstack` with these arguments in `cwd`; `extra` goes into its environment."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        input=stdin.encode(),
        capture_output=True,
        env=environ(**extra),
        timeout=40,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


class Terminal:
    """A call whose standard streams are a terminal of `columns`."""

    def __init__(self, *arguments: str, cwd: Path, columns: int = 80, **extra: str) -> None:
        self.said = ""
        child, self._terminal = pty.fork()
        if child == 0:
            os.chdir(cwd)
            os.execve(sys.executable, [*COMMAND, *arguments], environ(TERM="xterm", COLUMNS=str(columns), **extra))
        self.pid = child

    def wait_for(self, words: str, timeout: float = 40) -> str:
        """Read until `words` are on the screen; all that was said so far, without colours."""
        deadline = time.monotonic() + timeout
        while words not in self.plain:
            assert time.monotonic() < deadline, self.said
            assert self._read(0.2), self.said
        return self.plain

    def type(self, text: str) -> None:
        """Type."""
        os.write(self._terminal, text.encode())

    def signal(self, number: int) -> None:
        """Send a signal to the command alone."""
        os.kill(self.pid, number)

    def end(self, timeout: float = 20) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + timeout
        while self._read(0.2):
            assert time.monotonic() < deadline, self.said
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    @property
    def plain(self) -> str:
        """What was said, without escapes and with the line ends of a file."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.said).replace("\r\n", "\n")

    def _read(self, seconds: float) -> bool:
        """Whether there may be more."""
        ready, _, _ = select.select([self._terminal], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # Linux says so at the end
            return False
        self.said += data.decode("utf-8", "replace")
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._terminal)


@contextlib.contextmanager
def background(
    *arguments: str, cwd: Path, through: Sequence[str] = (), **extra: str
) -> Iterator[subprocess.Popen[str]]:
    """A call that goes on beside the test, its standard streams piped; killed at the end where it still runs.

    `through` is a command that ends by running what follows it.
    """
    process = subprocess.Popen(
        [*through, *COMMAND, *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ(PYTHONUNBUFFERED="1", **extra),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


def eventually(what: Any, seconds: float = 20) -> None:
    """Wait until `what()` is true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)
