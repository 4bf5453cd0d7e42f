"""The contract of the ledger, on each database it runs on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.postgres import PostgresServer
from upstack.testing import STORE_CHECKS
from upstack.testing.store_checks import MakePlace


@pytest.fixture
def files(tmp_path: Path) -> MakePlace:
    """Names of files that are not there yet."""
    numbers = itertools.count()
    return lambda: str(tmp_path / f"{next(numbers)}.db")


@pytest.mark.parametrize("check", STORE_CHECKS)
def test_a_file_keeps_the_contract(check: Callable[[MakePlace], None], files: MakePlace) -> None:
    """SQLite."""
    check(files)


@pytest.mark.parametrize("check", STORE_CHECKS)
def test_postgres_keeps_the_contract(check: Callable[[MakePlace], None], postgres: PostgresServer) -> None:
    """PostgreSQL."""
    check(postgres.new_ledger)
