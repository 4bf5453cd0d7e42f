"""Requests beside retention: a month is being deleted from the ledger that a gateway serves on.

The load is paced, as one that fills the machine would be slowed by anything else that runs. Times are of whole requests
to a provider on this machine, in windows with and without a deletion, in turns.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from benchmarks.data_plane.procs import free_port, running
from benchmarks.ledger.rows import Measured
from upstack.testing import EchoProvider

CALLERS = 16
PACE_S = 0.2  # between the requests of one caller: 80 a second in all
_LEAST = 200  # requests in a window that say something of their p99
_BODY = json.dumps({"model": "echo/m", "messages": [{"role": "user", "content": "one two three"}]})


def measure(place: str, days: float, keep: float, window: float, rounds: int) -> list[Measured]:
    """The p99 of requests while rows are deleted, over that of the windows beside.

    The ledger goes back `days`; a part of what is older than `keep` days goes in each round.
    """
    with EchoProvider() as echo, tempfile.TemporaryDirectory() as name, _gateway(Path(name), place, echo) as port:
        _window(port, 3.0)
        quiet, busy = [], []
        for number in range(1, rounds + 1):
            quiet.append(_window(port, window))
            with _pruning(place, days - (days - keep) * number / rounds) as at_work:
                busy.append(_window(port, window, at_work))
            if len(busy[-1]) < _LEAST:
                raise SystemExit(f"{len(busy[-1])} requests while rows were deleted are too few: more --receipts")
    ratios = [_p99(one) / _p99(other) for one, other in zip(busy, quiet, strict=True)]
    all_quiet, all_busy = list(chain(*quiet)), list(chain(*busy))
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}; p99 {_p99(all_busy):.1f} against {_p99(all_quiet):.1f} ms"
    middle = statistics.median(all_busy) / statistics.median(all_quiet)
    worst = f"{max(all_busy):.1f} against {max(all_quiet):.1f} ms, of {len(all_busy)} and {len(all_quiet)} requests"
    unit = "times that without"
    return [
        Measured("p99 of requests while retention deletes", statistics.median(ratios), unit, spread, 1.5),
        Measured("median of the same", middle, unit, f"slowest {worst}"),
    ]


@contextlib.contextmanager
def _gateway(folder: Path, place: str, echo: EchoProvider) -> Iterator[int]:
    port = free_port()
    config = folder / "upstack.toml"
    config.write_text(f'[providers.echo]\nbase_url = "{echo.base_url}"\nauth = "none"\n')
    flags = ["--config", str(config), "--ledger", place, "--port", str(port)]
    command = [sys.executable, "-m", "upstack.cli", "serve", *flags]
    with running(command, port, log=folder / "log", path="/readyz"):
        yield port


@contextlib.contextmanager
def _pruning(place: str, days: float) -> Iterator[Callable[[], bool]]:
    """Delete what is older, in the process that the gateway starts for it; yields whether it is still at it."""
    job = {"place": place, "keystore": None, "retention": {"rows": days, "contents": 0.0}}
    command = [sys.executable, "-m", "upstack.core.store.keeping"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps(job).encode() + b"\n")
    process.stdin.flush()
    time.sleep(2.0)  # until it has started
    try:
        yield lambda: process.poll() is None
    finally:
        process.communicate()  # ends its input, and so the deletion


def _window(port: int, seconds: float, lasts: Callable[[], bool] = lambda: True) -> list[float]:
    """Milliseconds of each request, for so long and while it `lasts`."""
    taken: list[float] = []
    end = time.monotonic() + seconds

    def call(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        at = time.monotonic() + PACE_S * number / CALLERS
        while at < end and lasts():
            time.sleep(max(0.0, at - time.monotonic()))
            began = time.perf_counter()
            connection.request("POST", "/v1/chat/completions", _BODY, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            taken.append(1000 * (time.perf_counter() - began))
            at += PACE_S

    threads = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def _p99(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100)[98]
