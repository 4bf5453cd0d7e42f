"""What the gateway weighs when nothing happens, and how soon it is there."""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from benchmarks.data_plane.procs import free_port, memory_mb, running

TIMES = 5
SETTLE_S = 3.0  # until the price list has been loaded


class Fact(msgspec.Struct, frozen=True):
    """One figure and its limit, in the same unit."""

    figure: str
    value: float
    limit: float
    unit: str


def measure(folder: Path) -> list[Fact]:
    """Memory, `--help`, time to ready; medians of five."""
    env = {**os.environ, "PYTHONPATH": str(Path("src").resolve()), "OPENAI_API_KEY": "sk-unused"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's second start finds the modules compiled
    ready = [_start(folder / f"start-{number}", env)[0] for number in range(TIMES)]
    memory = _start(folder / "idle", env, settle=SETTLE_S)[1]
    return [
        Fact("idle memory (PSS of gateway and writer, price list loaded)", memory, 80, "MB"),
        Fact("from the start of the process to a good /readyz", statistics.median(ready), 1.0, "s"),
        Fact("CPU of `upstack --help`", statistics.median(_help(env) for _ in range(TIMES)), 0.4, "s"),
    ]


def _start(home: Path, env: dict[str, str], settle: float = 0.0) -> tuple[float, float]:
    """Seconds until it is ready, and MB after `settle` seconds."""
    home.mkdir()
    port = free_port()
    command = [sys.executable, "-m", "upstack.cli", "serve", "--port", str(port), "--ledger", str(home / "upstack.db")]
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        pid = stack.enter_context(running(command, port, env=env, log=home / "out.log", path="/readyz"))
        ready = time.monotonic() - begun
        time.sleep(settle)
        return ready, memory_mb(pid)


def _help(env: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "upstack.cli", "--help"], env=env, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
