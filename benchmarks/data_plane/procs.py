"""Processes under test: start them, wait until they answer, read the CPU they used, stop them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, *, env: dict[str, str] | None = None, log: Path, path: str | None = None
) -> Iterator[int]:
    """Run `command` in a session of its own until the block ends.

    Yields its pid once `port` accepts connections and, where `path` is given, answers a GET of it with 200.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        _wait_for(port, process, log, path)
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path, path: str | None) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
        with contextlib.suppress(OSError):
            if path is None:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                return
            if urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2).status == 200:
                return
        time.sleep(0.01)
    raise SystemExit(f"{process.args!r} does not listen on {port}:\n{log.read_text()[-2000:]}")


def family(leader: int) -> list[int]:
    """The process `leader` and all that descend from it, whatever sessions they made for themselves."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [leader]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(leader: int) -> float:
    """User + system CPU seconds of all of them so far, from schedstat where the kernel has it (ns), else stat."""
    total = 0.0
    for pid in family(leader):
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    total += _thread_seconds(thread)
    return total


def _thread_seconds(thread: Path) -> float:
    try:
        return int((thread / "schedstat").read_text().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        fields = (thread / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def filesystem(folder: Path) -> str:
    """The kind of the filesystem that holds `folder`, such as "ext4"."""
    place = folder.resolve()
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    return max((len(point), kind) for point, kind in mounts if place.is_relative_to(point))[1]


def memory_mb(leader: int) -> float:
    """Proportional resident memory of all of them, in MB."""
    total = 0
    for pid in family(leader):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024
