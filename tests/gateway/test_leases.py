"""Several hosts on one PostgreSQL ledger spend from the same budgets."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.gateway.serving import Serving, chat, provider
from tests.postgres import PostgresServer, ask
from upstack.application.gateway.auth import new_key
from upstack.core.store.verify import verify
from upstack.testing import Answer, ScriptedProvider

CENT = 10**10  # picodollars; a token costs one
PRICE = '[prices."fake/m"]\ninput = 0.0\noutput = 10000.0\n'


def config(url: str, digest: str, budget: str) -> str:
    """One key with a budget, and a provider whose answers cost a cent a token."""
    return (
        '[server]\nledger = "env:LEDGER_URL"\n'
        f'[keys.app]\nhash = "{digest}"\nbudget_usd = {{ {budget} }}\n' + PRICE + provider("fake", url)
    )


def host(folder: Path, text: str, ledger: str) -> Serving:
    """A gateway with a ledger in PostgreSQL."""
    folder.mkdir()
    return Serving(folder, text, "--ledger", "env:LEDGER_URL", env={"LEDGER_URL": ledger})


@pytest.mark.parametrize("budget", ["day = 1.0", "total = 1.0, month = 5.0"])
def test_two_hosts_spend_a_budget_to_the_cent_and_no_further(
    postgres: PostgresServer, tmp_path: Path, budget: str
) -> None:
    """Of 160 requests at a cent each 100 are served, whichever host they ask, and the others say why."""
    ledger = postgres.new_ledger()
    key, digest = new_key()
    with ScriptedProvider(lambda _: Answer("x", output_tokens=1)) as fake:
        text = config(fake.base_url, digest, budget)
        with host(tmp_path / "one", text, ledger) as one, host(tmp_path / "two", text, ledger) as two:
            bearer = {"authorization": f"Bearer {key}"}

            def ask_one_of_both(number: int) -> int:
                return (one, two)[number % 2].post(chat("fake/m", max_tokens=1), **bearer).status_code

            with ThreadPoolExecutor(16) as pool:
                answers = Counter(pool.map(ask_one_of_both, range(160)))
            assert answers == {200: 100, 402: 60}
            refused = one.post(chat("fake/m", max_tokens=1), **bearer).json()["error"]
            assert refused["code"] == "budget_exceeded"
    assert ask(ledger, "SELECT sum(cost_picodollars), sum(requests) FROM spend") == [(100 * CENT, 160 + 1)]
    assert verify(ledger).found == 0


def test_a_host_that_died_leaves_what_it_did_not_spend(postgres: PostgresServer, tmp_path: Path) -> None:
    """Its lease shrinks to its receipts, and a new one goes on from there."""
    ledger = postgres.new_ledger()
    key, digest = new_key()
    bearer = {"authorization": f"Bearer {key}"}
    with ScriptedProvider(lambda _: Answer("x", output_tokens=1)) as fake:
        text = config(fake.base_url, digest, "day = 1.0")
        with host(tmp_path / "one", text, ledger) as one, host(tmp_path / "two", text, ledger) as two:
            for _ in range(30):
                assert one.post(chat("fake/m", max_tokens=1), **bearer).status_code == 200
            one.kill()
            answers = Counter(two.post(chat("fake/m", max_tokens=1), **bearer).status_code for _ in range(80))
            assert answers == {200: 70, 402: 10}
        with host(tmp_path / "three", text, ledger) as three:
            assert three.post(chat("fake/m", max_tokens=1), **bearer).status_code == 402
