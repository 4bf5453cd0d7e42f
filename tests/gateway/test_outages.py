"""A disk that fills and a database that goes away in the middle of a load: recorded or refused, and then as before."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.gateway.callers import Callers
from tests.gateway.serving import Serving, chat, provider
from tests.postgres import PostgresServer
from upstack.core.store.engine import transaction
from upstack.core.store.verify import verify
from upstack.testing import EchoProvider


class Load(Callers):
    """Callers that ask without a pause, and note the receipt of every answer and the status of all else."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.answered: list[str] = []
        self.refused: Counter[tuple[int, str]] = Counter()
        self._port = port

    def count(self) -> int:
        """How many were answered so far."""
        return len(self.answered)

    def run(self, number: int) -> None:
        """Ask."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=90)
        body = json.dumps(chat("echo/m", "word " * 200))
        while not self.stopping.is_set():
            connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            whole = answer.read()
            if answer.status == 200:
                self.answered.append(answer.headers["x-upstack-receipt"])
            else:
                self.refused[answer.status, json.loads(whole)["error"]["code"]] += 1
                time.sleep(0.02)
        connection.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB; skipped where none may be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def more(load: Load, than: int, seconds: float) -> None:
    """Wait until more were answered than that."""
    deadline = time.monotonic() + seconds
    while load.count() <= than:
        assert time.monotonic() < deadline, load.refused
        time.sleep(0.02)


def check(place: str, load: Load) -> None:
    """Every answer has its receipt, each once, and the chain and the sums are whole."""
    with transaction(place) as database:
        ids = [row[0] for row in database.execute(sa.text("SELECT id FROM receipts")).all()]
        attempts: Any = database.execute(sa.text("SELECT sum(attempts) FROM spend")).scalar()
        made = [row[0] for row in database.execute(sa.text("SELECT attempts FROM receipts")).all()]
    assert set(load.answered) <= set(ids)
    assert len(ids) == len(set(ids))
    assert int(attempts) == sum(len(json.loads(each)) for each in made)
    assert verify(place).found == 0


def test_a_disk_fills_under_load(small_disk: Path, tmp_path: Path) -> None:
    """Requests are recorded or refused by name; when there is room again all goes on, in the same processes."""
    place = str(small_disk / "upstack.db")
    with (
        EchoProvider() as echo,
        Serving(tmp_path, provider("echo", echo.base_url), "--ledger", place) as serving,
        Load(serving.port) as load,
    ):
        writer = serving.writer
        more(load, 50, 20)
        filler = small_disk / "filler"
        for _ in range(3):
            with filler.open("wb", buffering=0) as file:
                try:
                    while file.write(b"x" * 65536):
                        pass
                except OSError:
                    pass  # full
            deadline = time.monotonic() + 20
            while not load.refused and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(0.3)
            filler.unlink()
            more(load, load.count() + 20, 20)
        assert serving.writer == writer
    assert set(load.refused) == {(503, "ledger_unavailable")}
    check(place, load)


@pytest.mark.parametrize("away", [3, pytest.param(60, marks=[pytest.mark.soak, pytest.mark.timeout(180)])])
def test_postgresql_is_away(tmp_path: Path, postgres: PostgresServer, away: int) -> None:
    """Requests are refused by name meanwhile, and answered again once it is back; nothing is lost or there twice."""
    place = postgres.new_ledger()
    with (
        EchoProvider() as echo,
        Serving(tmp_path, provider("echo", echo.base_url), "--ledger", place) as serving,
        Load(serving.port) as load,
    ):
        more(load, 50, 20)
        postgres.kill()
        time.sleep(away)
        before = load.count()
        postgres.start()
        more(load, before + 50, 40)
    assert {status for status, _ in load.refused} == {503}
    sys.stdout.write(
        f"PostgreSQL away for {away} s: {load.count():,} answered, {load.refused.total():,} refused by name\n"
    )
    check(place, load)
