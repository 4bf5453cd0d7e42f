"""One round of load by wrk, and rounds of several subjects in turn."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.data_plane.procs import cpu_seconds
from benchmarks.data_plane.subjects import Subject


class Load(msgspec.Struct, frozen=True):
    """How a round loads its subject. `chunks`: events a stream has; None: plain answers."""

    connections: int
    seconds: float
    chunks: int | None


class Round(msgspec.Struct, frozen=True):
    """What came of one: CPU microseconds of all the subject's processes a request, or a chunk."""

    cpu_us: float
    per_second: float
    errors: int


class Row(msgspec.Struct, frozen=True):
    """A subject's median over its rounds; ratios are to the base's of the same round."""

    figure: str
    subject: str
    does: str
    cpu_us: float
    cpu_least: float
    cpu_most: float
    ratio: float
    ratio_least: float
    ratio_most: float
    per_second: float
    errors: int


def compare(subjects: Sequence[Subject], load: Load, rounds: int, folder: Path) -> list[Row]:
    """Measure all in turn, `rounds` times, so that a drifting machine hits them alike; the first is the base."""
    found: dict[str, list[Round]] = {subject.name: [] for subject in subjects}
    for subject in subjects:
        run(subject, Load(load.connections, 1.0, load.chunks), folder)  # warm
    for _ in range(rounds):
        for subject in subjects:
            found[subject.name].append(run(subject, load, folder))
    base = found[subjects[0].name]
    figure = f"a {'chunk' if load.chunks else 'request'}, {load.connections} connections"
    return [_row(figure, subject, found[subject.name], base) for subject in subjects]


def run(subject: Subject, load: Load, folder: Path) -> Round:
    """Load it for that long."""
    script = folder / "wrk.lua"
    script.write_text(_script(subject, stream=load.chunks is not None))
    url = f"http://127.0.0.1:{subject.port}{subject.path}"
    seconds = max(1, round(load.seconds))
    before = cpu_seconds(subject.pid)
    command = ["wrk", "-t1", f"-c{load.connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), url]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = cpu_seconds(subject.pid) - before
    units = _number(r"(\d+) requests in", told) * (load.chunks or 1)
    rate = _number(r"Requests/sec:\s+([\d.]+)", told) * (load.chunks or 1)
    failed = sum(_number(rf"{kind} (\d+)", told) for kind in ("connect", "read", "write", "timeout"))
    failed += _number(r"Non-2xx or 3xx responses: (\d+)", told)
    return Round(used / max(1, units) * 1e6, rate, round(failed))


def _row(figure: str, subject: Subject, results: list[Round], base: list[Round]) -> Row:
    cpus = [result.cpu_us for result in results]
    ratios = [result.cpu_us / own.cpu_us for result, own in zip(results, base, strict=True)]
    return Row(
        figure,
        subject.name,
        subject.does,
        statistics.median(cpus),
        min(cpus),
        max(cpus),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        statistics.median(result.per_second for result in results),
        sum(result.errors for result in results),
    )


def _script(subject: Subject, *, stream: bool) -> str:
    """A POST of about 1 KB."""
    messages = [{"role": "system", "content": "You are a benchmark."}, {"role": "user", "content": "x" * 900}]
    body = {"model": subject.model, "messages": messages, "temperature": 0.2, "stream": stream}
    headers = {"Content-Type": "application/json", "Authorization": "Bearer caller", **subject.headers}
    lines = [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()]
    return "\n".join(['wrk.method = "POST"', f"wrk.body = {json.dumps(json.dumps(body))}", *lines, ""])


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    return float(found[1]) if found else 0.0
