"""The ledger's benchmark runs and tells each figure with its limit; what the figures are is not for tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ledger.rows import Measured
from tests.cli.calling import environ

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("flags", "figures"),
    [
        (("--only", "commits", "--commits", "5", "--rounds", "1"), ["KB, 1 to a", "KB, 16 to a", "same, 64 to a"]),
        (("--only", "million", "--receipts", "3000"), ["spend by task", "by its id", "50 newest", "ledger verify"]),
    ],
)  # fmt: skip
def test_it_tells_each_figure(flags: tuple[str, ...], figures: list[str]) -> None:
    """In a Markdown table, a line each."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ledger", *flags],
        cwd=ROOT,
        env=environ(TMPDIR="/var/tmp"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in {0, 1}, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert all(sum(figure in line for line in lines) == 1 for figure in figures), done.stdout


@pytest.mark.parametrize(("value", "most", "missed"), [(1.4, True, False), (1.6, True, True), (1.4, False, True)])
def test_a_limit_that_is_missed_is_said(value: float, most: bool, missed: bool) -> None:
    """The most or the least that is allowed."""
    row = Measured("x", value, "ms", "", 1.5, most=most)
    assert row.missed is missed
    assert ("**missed**" in row.line()) is missed
    assert not Measured("x", value, "ms", "").missed
