"""A ledger of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty ledger, in a folder of its own."""
    monkeypatch.chdir(tmp_path)  # where the keystore of a database lies
    if request.param == "sqlite":
        return str(tmp_path / "upstack.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_ledger()
