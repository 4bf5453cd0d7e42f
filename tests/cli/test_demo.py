"""`upstack demo`: the main job from end to end, in processes of its own, and its sums done again by another hand."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx2
import pytest

from benchmarks.converters import zeroeval
from tests import plain
from tests.cli.calling import Done, Terminal, background, call, environ, eventually
from tests.cli.recording import independent_sum, record, recorded_row
from upstack.application.data.generate import SIMULATED_LARGE, SIMULATED_SMALL, generate_traffic
from upstack.application.gateway.explain import usd
from upstack.core.traffic import TrafficRow, read_traffic


def _demo(cwd: Path, *flags: str) -> Done:
    """Call the demo with the temporary files where the test sees that they are gone."""
    (cwd / "tmp").mkdir(exist_ok=True)
    done = call("demo", *flags, cwd=cwd, TMPDIR=str(cwd / "tmp"))
    assert not list((cwd / "tmp").iterdir()), "the demo leaves no file"
    return done


def test_it_needs_nothing_and_claims_nothing(tmp_path: Path) -> None:
    """Without key, network or terminal: the whole table, plainly simulated, and back to the shell.

    Costs equal a sum over the generated rows done here, and the receipts in the ledger that was kept.
    """
    done = _demo(tmp_path, "--requests", "50", "--ledger", "kept.db")
    assert (done.code, done.err) == (0, "")
    answers = [row.answers for row in generate_traffic(50)]
    large = sum(
        2_500_000 * a.input_tokens + 10_000_000 * a.output_tokens for a in (a[SIMULATED_LARGE] for a in answers)
    )
    small = sum(150_000 * a.input_tokens + 600_000 * a.output_tokens for a in (a[SIMULATED_SMALL] for a in answers))
    for words in (
        "SIMULATED",
        "50 answered, 0 failed; 5 streamed",
        "simulated-b/small",
        "simulated-a/large",
        f"${usd(small)}, by the receipts",
        f"${usd(large)}",
        f"${usd(large - small)} ({100 * (large - small) / large:.1f} %)",
        "against the reference (loss: 0 good, 1 bad)",
        "on 50 rows",
        "made up",
        "without the time that models take",
        "95 %",
        "configured order, nothing certified",
        "none: Too few rows",
        "50, counted in kept.db; 50 requests answered",
        "to the picodollar",
        "p50",
        "The demo took",
    ):
        assert words in done.out
    assert "\x1b" not in done.out
    assert max(map(len, done.out.splitlines())) <= 120
    with contextlib.closing(sqlite3.connect(tmp_path / "kept.db")) as ledger:
        kept = ledger.execute("SELECT count(*), sum(cost_picodollars), sum(stream) FROM receipts").fetchone()
    assert kept == (50, small, 5)


def test_it_shows_what_is_certified(tmp_path: Path) -> None:
    """Beside what was saved without a proof: a smaller saving, and how it came out on other rows."""
    pytest.importorskip("sklearn", reason="a backtest needs the extra `learn`")
    report = _demo(tmp_path, "--json").json
    proved = report["certified"]
    assert (proved["why"], proved["max_loss"], proved["rows"]) == (None, 0.05, 1000)
    assert 0 < 1 - proved["cost_ratio"] < report["saved"]["share"]
    assert proved["excess_loss"] < 0.05 < report["excess_loss"]["high"]


def test_recorded_traffic_costs_what_the_file_says(tmp_path: Path) -> None:
    """Repeated prompts, rows without both answers and loss by the truth: each is counted as it should be."""
    rows = [recorded_row(number, f"prompt {number % 25}") for number in range(30)]
    partial = [
        recorded_row(30, "prompt 3", ("b/cheap",)),
        recorded_row(31, "alone", ("a/dear",)),
        recorded_row(32, "neither", ("c/middle",)),
    ]
    path = record(tmp_path, [*partial[:1], *rows, *partial[1:]])
    report = _demo(tmp_path, "--traffic", str(path), "--json").json
    assert report["requests"]["answered"] == 30
    assert report["requests"]["skipped_rows"] == 3
    assert report["cost_as_served"]["picodollars"] == independent_sum(rows, "b/cheap")
    assert report["cost_always_reference"]["picodollars"] == independent_sum(rows, "a/dear")
    assert report["costs_checked"] == 30
    assert report["excess_loss"]["rows"] == 20, "rows without a truth cannot be measured"
    assert report["excess_loss"]["mean"] == pytest.approx(7 / 20)
    assert report["faults"] == []
    assert report["took_s"] > 0
    assert report["prices"] == "some.prices.toml"
    assert report["url"] is None, "the gateway is gone"


def test_what_cannot_be_demonstrated_is_said(tmp_path: Path) -> None:
    """A file without answers, and a port that is taken, in one line each."""
    path = str(record(tmp_path, [TrafficRow("r", "t", ({"role": "user", "content": "x"},), {}, truth="yes")]))
    _demo(tmp_path, "--traffic", path).failed(2, "no recorded answers")
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        _demo(tmp_path, "--port", port).failed(1, "did not start", port, "Try --port")


def test_without_the_client_it_says_how_to_get_it(tmp_path: Path) -> None:
    """`openai` is an extra."""
    code = (
        "import sys; sys.modules['openai'] = None; sys.argv = ['upstack', 'demo']; from upstack.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'upstack[demo]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_in_a_terminal_it_stays_up_until_ctrl_c(tmp_path: Path) -> None:
    """The URL answers, the commands it names work, and Ctrl-C takes everything away."""
    before = set(_folders())
    with Terminal("demo", "--requests", "10", cwd=tmp_path, columns=100) as terminal:
        screen = terminal.wait_for("until Ctrl-C")
        assert max(map(len, screen.partition("Try it:")[0].splitlines())) <= 100
        url = next(word for word in screen.split() if word.startswith("http://127.0.0.1:") and word.endswith("/v1"))
        (folder,) = set(_folders()) - before
        commands = [line.strip() for line in screen.partition("Try it:")[2].splitlines() if line.startswith("  ")]
        assert [Path(command.split()[0]).name for command in commands] == ["curl", "upstack", "upstack"]
        body = json.loads((folder / "request.json").read_text())
        answer = plain.post(f"{url}/chat/completions", json=body, timeout=10)
        assert answer.status_code == 200
        for command in commands[1:]:
            _, _, rest = command.partition(" ")
            shell = f"{sys.executable} -m upstack.cli {rest}"
            done = subprocess.run(shell, shell=True, cwd=tmp_path, env=environ(), capture_output=True, check=False)
            assert done.returncode == 0, done.stderr
        terminal.type("\x03")
        assert terminal.end() == 0
    assert not folder.exists()
    with pytest.raises(httpx2.ConnectError):
        plain.get(f"{url}/models")


IGNORING_INT = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")  # as a script's background has it


@pytest.mark.parametrize(
    ("number", "through"),
    [(signal.SIGTERM, ()), (signal.SIGINT, ()), (signal.SIGTERM, IGNORING_INT), (signal.SIGHUP, IGNORING_INT)],
)
def test_an_interrupted_demo_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, through: tuple[str, ...]
) -> None:
    """In the middle of the traffic a signal stops server and providers, and takes the files away."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    ledger = tmp_path / "kept.db"
    with background(
        "demo", "--requests", "2000", "--ledger", str(ledger), cwd=tmp_path, through=through, TMPDIR=str(temporary)
    ) as process:
        eventually(lambda: _receipts(ledger) > 10)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 128 + number
        assert err == ""
    assert _receipts(ledger) < 2000, "it did not wait for the end of the traffic"
    assert not list(temporary.iterdir())
    eventually(lambda: not _serving(str(temporary)))


def test_zeroeval_costs_what_its_file_says(data: Path, tmp_path: Path) -> None:
    """Real recorded answers, all of them: costs equal a sum over the converted file, in decimals, to the picodollar."""
    if not (data / "zeroeval").is_dir():
        pytest.skip("UPSTACK_DATA holds no zeroeval")
    for _ in zeroeval.convert(data, tmp_path, None):
        pass
    traffic = tmp_path / "zeroeval.jsonl.gz"
    report = _demo(tmp_path, "--traffic", str(traffic), "--json").json
    rows = list(read_traffic(traffic))
    prices = (tmp_path / "zeroeval.prices.toml").read_text()
    assert report["requests"]["answered"] == report["receipts"] == report["excess_loss"]["rows"] == len(rows) == 1145
    for cost, role in (("cost_as_served", "candidate"), ("cost_always_reference", "reference")):
        assert report[cost]["picodollars"] == independent_sum(rows, report[role]["route"], prices)


def _folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("upstack-demo-*"))


def _receipts(ledger: Path) -> int:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM receipts").fetchone()[0])
    except sqlite3.Error:
        return 0


def _serving(words: str) -> list[Any]:
    """The processes of this machine whose command line holds `words`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if words.encode() in path.read_bytes():
                found.append(path)
    return found
