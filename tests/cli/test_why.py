"""`upstack why`: a receipt in words and in JSON, from the file, beside a gateway that writes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli.calling import call
from tests.cli.recording import record, recorded_row
from tests.gateway.serving import Serving, chat, provider
from upstack.core.store.reading import list_receipts
from upstack.core.store.sqlite import SqliteLedger
from upstack.testing import EchoProvider, Fault, FlakyProvider


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A gateway whose first route refuses, and which has answered two requests."""
    with ExitStack() as stack:
        echo = stack.enter_context(EchoProvider())
        refuses = stack.enter_context(FlakyProvider(Fault.STATUS_401))
        config = '[tasks.t]\ncandidates = ["bad/x", "good/x"]\n[prices."good/x"]\ninput = 1\noutput = 2\n'
        config += provider("good", echo.base_url) + provider("bad", refuses.base_url)
        running = stack.enter_context(Serving(tmp_path_factory.mktemp("gateway"), config))
        assert running.post(chat("task/t")).status_code == 200
        assert running.post(chat("good/x", "the second\x1b[2J")).status_code == 200
        yield running


def test_a_receipt_is_told_in_words(gateway: Serving) -> None:
    """What was asked, who answered, why, every attempt, tokens and cost; while the gateway serves."""
    older = list_receipts(gateway.ledger, 2)[1].id
    done = call("why", older, cwd=gateway.folder)
    assert done.code == 0
    assert done.out.startswith(f"{older}\n")
    for words in (
        "'task/t' was answered by good/x",
        "in the configured order, nothing certified",
        "Attempt 1: bad/x",
        "provider auth, HTTP 401",
        "Attempt 2: good/x",
        "Tokens: 3 in, 3 out.",
        "Cost: $0.000009.",
    ):
        assert words in done.out


def test_a_replayed_answer_is_told_from_a_real_one(tmp_path: Path) -> None:
    """By `serve` as it starts, by `ask` and by `why`; a model beside the recording is not called replayed."""
    path = record(tmp_path, [recorded_row(1, "x")])
    with (
        EchoProvider() as echo,
        Serving(tmp_path, provider("echo", echo.base_url), "--replay", str(path)) as running,
    ):
        assert f"replaying {path}: no provider but echo is called\n" in running.log
        asked = call("ask", "x", "--model", "a/dear", "--url", running.url, cwd=tmp_path)
        assert "a/dear (replayed) | " in asked.err
        done = call("why", "last", cwd=tmp_path)
        assert "was answered by a/dear (replayed) after" in done.out
        assert "version replay:" in done.out
        live = call("ask", "x", "--model", "echo/x", "--url", running.url, "--json", cwd=tmp_path).json
        assert live["replayed"] is False
        assert "replay" not in call("why", "last", cwd=tmp_path).out


def test_json_is_the_endpoint_s(gateway: Serving) -> None:
    """The command and `GET /v1/receipts/{id}` say the same."""
    newest = list_receipts(gateway.ledger, 1)[0].id
    done = call("why", newest, "--json", "--ledger", str(gateway.ledger), cwd=gateway.folder.parent)
    assert done.json == gateway.receipt(newest)


def test_last_is_the_newest(gateway: Serving) -> None:
    """`last` saves looking up an id; request and answer are there too."""
    newest = list_receipts(gateway.ledger, 1)[0].id
    whole = call("why", "last", "--json", cwd=gateway.folder).json
    assert whole["id"] == newest
    assert "the second" in whole["request"]["messages"][0]["content"]


def test_what_was_not_answered_says_that_nothing_is_billed(gateway: Serving) -> None:
    """A cost of nothing is explained where no price is known, so that it does not pass for a price."""
    assert gateway.post(chat("bad/x")).status_code != 200
    done = call("why", "last", cwd=gateway.folder)
    assert "price unknown" in done.out
    assert "Cost: $0 (no attempt is billed)." in done.out


def test_an_unknown_receipt_is_said(gateway: Serving) -> None:
    """With what to do about it."""
    call("why", "rcpt_nosuch", cwd=gateway.folder).failed(1, "rcpt_nosuch", "upstack why last")


def test_a_ledger_that_is_not_there_is_said(tmp_path: Path) -> None:
    """Reading makes no file."""
    call("why", "last", cwd=tmp_path).failed(1, "upstack.db", "server.ledger")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_ledger_is_said(tmp_path: Path) -> None:
    """It is named, and left alone."""
    (tmp_path / "notes.txt").write_text("no database at all, but long enough to be read as one" * 20)
    call("why", "last", "--ledger", "notes.txt", cwd=tmp_path).failed(1, "notes.txt")


def test_a_ledger_without_receipts_is_said(tmp_path: Path) -> None:
    """A gateway that has answered nothing yet has no last receipt."""
    SqliteLedger(str(tmp_path / "upstack.db")).close()
    call("why", "last", cwd=tmp_path).failed(1, "no receipts yet")
