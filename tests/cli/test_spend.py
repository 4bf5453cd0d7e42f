"""`upstack keys` and `upstack spend` from a shell: a key with five cents a day runs dry, and all of it is explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import plain
from tests.cli.calling import call
from tests.gateway.serving import Serving, chat, provider
from upstack.testing import EchoProvider

PRICES = '[prices."echo/m"]\ninput = 10\noutput = 1000\n'
PROMPT = "one two three four five six"


def picodollars(tokens: int, rate: int) -> int:
    """Of so many tokens at so many USD per million."""
    return tokens * rate * 10**6


def test_a_key_runs_dry_at_the_right_request(tmp_path: Path) -> None:
    """It is made, used up and explained by commands alone; the request that is one too many is reckoned here."""
    with EchoProvider() as echo:
        config = provider("echo", echo.base_url) + PRICES
        (tmp_path / "upstack.toml").write_text(config)
        made = call("keys", "new", "app", "--team", "dispatch", "--budget-day", "0.05", "--write", cwd=tmp_path)
        assert made.code == 0, made
        secret = made.out.strip()
        assert secret.startswith("sk-upstack-")
        assert secret not in (tmp_path / "upstack.toml").read_text()
        body = json.dumps(chat("echo/m", PROMPT, max_tokens=8)).encode()
        cost = picodollars(6, 10) + picodollars(6, 1000)
        held = picodollars(len(body), 10) + picodollars(8, 1000)
        right = next(number for number in range(1000) if number * cost + held > picodollars(50_000, 1))
        with Serving(tmp_path, (tmp_path / "upstack.toml").read_text()) as gateway:
            headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
            url = f"{gateway.url}/v1/chat/completions"
            answers = [plain.post(url, content=body, headers=headers) for _ in range(right + 2)]
            statuses = [answer.status_code for answer in answers]
            listed = call("keys", "list", "--json", cwd=tmp_path).json
        assert statuses == [200] * right + [402] * 2
        receipt = answers[-1].headers["x-upstack-receipt"]
    why = call("why", receipt, cwd=tmp_path).out
    assert "not answered (budget_exceeded)" in why
    assert "The budget of key app does not suffice: " in why
    assert "would have been held" in why
    told = call("spend", "--by", "key", "--json", cwd=tmp_path).json
    assert told["total"]["cost_picodollars"] == right * cost
    assert [(row["key"], row["requests"]) for row in told["rows"]] == [("app", right + 2)]
    shown = call("spend", "--by", "key", "--by", "day", cwd=tmp_path).out
    assert f"${right * cost / 10**12:.5f}".rstrip("0") in shown
    assert secret not in json.dumps(listed)


def test_a_key_is_rotated_with_overlap(tmp_path: Path) -> None:
    """Both are good for a while, and then the new one alone."""
    with EchoProvider() as echo:
        (tmp_path / "upstack.toml").write_text(provider("echo", echo.base_url))
        old = call("keys", "new", "app", "--write", cwd=tmp_path).out.strip()
        new = call("keys", "rotate", "app", "--overlap", "1", "--write", cwd=tmp_path).out.strip()
        gone = call("keys", "rotate", "app", "--overlap", "0", cwd=tmp_path)
        assert gone.code == 0
        with Serving(tmp_path, (tmp_path / "upstack.toml").read_text()) as gateway:
            for secret, status in ((old, 200), (new, 200), (old + "x", 401)):
                answer = gateway.post(chat("echo/m"), authorization=f"Bearer {secret}")
                assert answer.status_code == status
    call("keys", "new", "app", "--write", cwd=tmp_path).failed(2, "app")
    call("keys", "rotate", "nobody", cwd=tmp_path).failed(2, "nobody")
    call("keys", "new", "a b", cwd=tmp_path).failed(2, "letters")


@pytest.mark.parametrize(
    ("flags", "code", "word"),
    [
        (("--by", "colour"), 2, "expected one of"),
        (("--since", "yesterday"), 2, "2026-01-31"),
        (("--until", "2026-13-01"), 2, "2026-01-31"),
        (("--invoice", "none.csv"), 1, "none.csv"),
        (("--invoice", "bill.csv", "--column", "colour=red"), 2, "cost=HEADING"),
    ],
)
def test_mistakes_are_said(tmp_path: Path, flags: tuple[Any, ...], code: int, word: str) -> None:
    """In one line, with what is allowed."""
    with EchoProvider() as echo:
        (tmp_path / "upstack.toml").write_text("[server]\nport = 1\n" + provider("echo", echo.base_url) + PRICES)
        assert call("ask", PROMPT, "-m", "echo/m", cwd=tmp_path).code == 0
    (tmp_path / "bill.csv").write_text("cost\n1\n")
    call("spend", *flags, cwd=tmp_path).failed(code, word)


def test_an_invoice_is_laid_beside_what_was_recorded(tmp_path: Path) -> None:
    """The difference is told, in a table and for programs; a ledger that is not there is said."""
    call("spend", cwd=tmp_path).failed(1, "no ledger")
    with EchoProvider() as echo:
        (tmp_path / "upstack.toml").write_text("[server]\nport = 1\n" + provider("echo", echo.base_url) + PRICES)
        assert call("ask", PROMPT, "-m", "echo/m", cwd=tmp_path).code == 0
    (tmp_path / "bill.csv").write_text("model,cost\nm,0.01\nother,x\n")
    told = call("spend", "--invoice", "bill.csv", "--json", cwd=tmp_path).json
    (row,) = told["rows"]
    recorded = picodollars(6, 10) + picodollars(6, 1000)
    assert (row["model"], row["invoiced"], row["recorded"]) == ("m", 10**10, recorded)
    assert [number for number, _ in told["rejected"]] == [3]
    shown = call("spend", "--invoice", "bill.csv", cwd=tmp_path).out
    assert "a difference of +$0.00394." in shown
    assert "line 3:" in shown
    assert "no spending in that time" in call("spend", "--since", "2999-01-01", cwd=tmp_path).out
