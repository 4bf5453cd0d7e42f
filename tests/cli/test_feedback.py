"""`upstack feedback`: told from a shell, explained by `upstack why`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.calling import call
from tests.gateway.serving import Serving, provider
from upstack.testing import EchoProvider


def test_an_outcome_is_told_where_no_gateway_runs(tmp_path: Path) -> None:
    """As `ask` does it: a gateway runs for the call, and the ledger has it afterwards."""
    with EchoProvider() as echo:
        (tmp_path / "upstack.toml").write_text("[server]\nport = 1\n" + provider("echo", echo.base_url))
        assert call("ask", "hi", "-m", "echo/m", cwd=tmp_path).code == 0
        done = call("feedback", "last", "--value", "good", "--comment", "as it should be", cwd=tmp_path)
        assert done.code == 0, done
        assert "recorded of rcpt_" in done.out
        (tmp_path / "right.txt").write_text("hello")
        told = ("feedback", "last", "--value", "0.5", "--demonstration", "@right.txt", "--source", "QA", "--json")
        assert call(*told, cwd=tmp_path).json["superseded"] == done.out.split()[0]
    why = call("why", "last", cwd=tmp_path).out
    assert "Outcome: 0.5 (of 0 to 1), told by QA on " in why
    assert "; 1 before it superseded." in why
    assert "Latest comment: as it should be" in why
    assert "Latest demonstration: hello" in why
    assert call("ledger", "verify", cwd=tmp_path).code == 0


def test_mistakes_are_said(tmp_path: Path) -> None:
    """Before anything is sent where that is possible, else in the gateway's words."""
    with EchoProvider() as echo, Serving(tmp_path, provider("echo", echo.base_url)) as gateway:
        there = ("--url", gateway.url)
        call("feedback", *there, cwd=tmp_path).failed(2, "of which receipt")
        call("feedback", "rcpt_x", "--value", "2", *there, cwd=tmp_path).failed(2, "0 to 1")
        call("feedback", "rcpt_x", "--demonstration", "@none", *there, cwd=tmp_path).failed(2, "none")
        call("feedback", "rcpt_x", "--value", "1", *there, cwd=tmp_path).failed(1, "no such receipt")
        call("feedback", "rcpt_x", *there, cwd=tmp_path).failed(1, "Tell a")
        done = call("feedback", "--episode", "e", "--value", "no", "--json", *there, cwd=tmp_path)
        assert (done.code, done.error["code"]) == (2, "invalid_config")
