"""`upstack doctor`: what is found and what is wrong, never a secret."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.calling import Done, call
from tests.gateway.serving import Serving, chat, provider
from upstack.application.doctor.bypasses import bypasses
from upstack.application.doctor.ledger import ledger
from upstack.core.config import ServerConfig
from upstack.testing import EchoProvider


def _findings(done: Done, topic: str) -> list[tuple[str, str]]:
    return [
        (each["level"], f"{each['text']} -> {each['remedy']}")
        for each in done.json["findings"]
        if each["topic"] == topic
    ]


def _doctor(folder: Path, *flags: str, **environ: str) -> Done:
    return call("doctor", "--json", *flags, cwd=folder, **environ)


@contextmanager
def _answering(status: int) -> Iterator[int]:
    """A server that answers every GET with `status`; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


def test_an_empty_machine_is_told_what_to_set(tmp_path: Path) -> None:
    """No provider is a problem with a remedy; the exit code says so."""
    done = call("doctor", "--offline", cwd=tmp_path)
    assert done.code == 1
    assert done.err == ""
    assert "OPENAI_API_KEY" in done.out
    assert "1 problem" in done.out
    assert "\x1b" not in done.out
    for words in ("GROQ_API_KEY", "OLLAMA_HOST", str(tmp_path / "upstack.toml"), "which is not there"):
        assert words in "".join(done.out.split()) or words in " ".join(done.out.split()), "where it looked"


def test_keys_are_named_and_never_shown(tmp_path: Path) -> None:
    """Where a key came from is said; nearly complete and unsupported providers are explained."""
    keys = {"OPENAI_API_KEY": "sk-secret", "AZURE_OPENAI_API_KEY": "az-secret", "AWS_ACCESS_KEY_ID": "aws-secret"}
    (tmp_path / "upstack.toml").write_text(
        '[providers.mine]\nbase_url = "http://127.0.0.1:9/v1"\napi_key = "env:MINE"\n'
    )
    done = _doctor(tmp_path, "--offline", MINE="my-secret", **keys)
    assert done.code == 0
    assert "secret" not in done.out
    found = _findings(done, "provider")
    assert ("ok", "openai, from the environment, key OPENAI_API_KEY: https://api.openai.com/v1 -> ") in found
    assert ("ok", "mine, configured, key env:MINE: http://127.0.0.1:9/v1 -> ") in found
    assert any(level == "note" and "azure" in text and "AZURE_OPENAI_ENDPOINT" in text for level, text in found)
    assert any(level == "note" and "SigV4" in text for level, text in found)
    assert any(text.startswith("the price list knows no model of mine") for _, text in _findings(done, "price"))


def test_each_broken_provider_is_found(tmp_path: Path) -> None:
    """One mistake does not hide the next, nor the rest of what is to be said."""
    (tmp_path / "upstack.toml").write_text(
        '[providers.openai]\napi_key = "env:NOT_SET"\n[providers.other]\nbase_url = "ftp://x"\nauth = "none"\n'
        '[providers.leak]\nbase_url = "http://127.0.0.1:9/v1"\napi_key = "sk-written-in-the-file"\n'
    )
    done = _doctor(tmp_path, "--offline", GROQ_API_KEY="x")
    assert done.code == 1
    problems = [text for level, text in _findings(done, "provider") if level == "problem"]
    assert len(problems) == 3
    assert any("NOT_SET" in text for text in problems)
    assert "sk-written" not in done.out
    remedies = {each["text"].partition(".api_key")[0]: each["remedy"] for each in done.json["findings"]}
    assert remedies["providers.openai"] == "set or mend it, or take [providers.openai] out"
    assert remedies["providers.leak"] == 'put the key into the environment and write api_key = "env:LEAK_API_KEY"'
    assert any("groq" in text for level, text in _findings(done, "provider") if level == "ok")


def test_a_broken_configuration_is_a_problem_among_others(tmp_path: Path) -> None:
    """The doctor says what is wrong with it, and goes on."""
    (tmp_path / "upstack.toml").write_text("[server]\nprot = 1\n")
    done = _doctor(tmp_path, "--offline", OPENAI_API_KEY="x")
    assert done.code == 1
    ((level, text),) = _findings(done, "config")
    assert level == "problem"
    assert "did you mean `port`?" in text
    assert _findings(done, "ledger")


def test_providers_are_tried(tmp_path: Path) -> None:
    """One answers, one refuses its key, one is not there, one has no list of models; each is said once."""
    with EchoProvider() as echo, _answering(401) as refusing, _answering(404) as listless:
        dead = f"http://127.0.0.1:{_free_port()}/v1"
        tables = provider("echo", echo.base_url) + provider("dead", dead)
        tables += f'[providers.strict]\nbase_url = "http://127.0.0.1:{refusing}/v1"\napi_keys = ["env:A", "env:B"]\n'
        tables += provider("plain", f"http://127.0.0.1:{listless}/v1")
        (tmp_path / "upstack.toml").write_text(f"[server]\nport = {_free_port()}\n{tables}")
        done = _doctor(tmp_path, A="a", B="b")
    assert done.code == 1
    found = _findings(done, "reach")
    assert ("ok", "echo answers -> ") in found
    assert ("ok", "plain answers (HTTP 404 to the list of models) -> ") in found
    assert any(
        level == "problem" and text.startswith("dead cannot be reached: Connection refused") for level, text in found
    )
    assert [text.partition(" -> ")[0] for _, text in found if text.startswith("strict")] == [
        "strict refuses the key env:A (HTTP 401)",
        "strict refuses the key env:B (HTTP 401)",
    ]
    ((level, text),) = _findings(done, "gateway")
    assert level == "note"
    assert "upstack serve" in text


def test_a_gateway_is_recognised_and_a_stranger_too(tmp_path: Path) -> None:
    """What listens on the port is our gateway, or a problem."""
    with EchoProvider() as echo, Serving(tmp_path, provider("echo", echo.base_url)) as gateway:
        assert gateway.post(chat("echo/x")).status_code == 200
        done = _doctor(tmp_path, UPSTACK_SERVER_PORT=str(gateway.port))
        assert _findings(done, "gateway") == [("ok", f"serves at {gateway.url}/v1 -> ")]
        assert any("last receipt" in text and "rcpt_" in text for _, text in _findings(done, "ledger"))
        stranger = _doctor(tmp_path, UPSTACK_SERVER_PORT=str(echo.port))
        ((level, text),) = _findings(stranger, "gateway")
        assert level == "problem"
        assert "server.port" in text


def test_a_model_server_nobody_configured_is_pointed_out(tmp_path: Path) -> None:
    """With the variable that would bring it in; once it is set the hint is gone."""
    try:
        local = EchoProvider(port=30000).start()  # SGLang's
    except OSError:
        pytest.skip("port 30000 is taken on this machine")
    try:
        (tmp_path / "upstack.toml").write_text(f"[server]\nport = {_free_port()}\n")
        found = [text for _, text in _findings(_doctor(tmp_path), "local") if "sglang" in text]
        assert len(found) == 1
        assert "export SGLANG_BASE_URL=http://127.0.0.1:30000" in found[0]
        assert not _findings(_doctor(tmp_path, SGLANG_BASE_URL="http://127.0.0.1:30000"), "local")
    finally:
        local.stop()


@pytest.mark.parametrize(
    ("environ", "level", "words"),
    [
        ({}, "note", "OPENAI_BASE_URL is not set"),
        ({"OPENAI_BASE_URL": "http://localhost:4000/v1"}, "ok", "points to the gateway"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:4000"}, "problem", "does not end in /v1"),
        ({"OPENAI_BASE_URL": "https://user:pw@example.com/v1"}, "note", "points to example.com"),
        ({"OPENAI_BASE_URL": "http://[::1"}, "note", "points to what is no URL"),
        ({"OPENAI_API_BASE": "http://127.0.0.1:4001/v1"}, "note", "OPENAI_API_BASE points to 127.0.0.1"),
        ({"ANTHROPIC_BASE_URL": "https://example.com"}, "note", "messages dialect"),
        ({"AZURE_OPENAI_ENDPOINT": "https://example.com"}, "note", "AzureOpenAI clients"),
        ({"LITELLM_PROXY_API_BASE": "https://example.com"}, "note", "LITELLM_PROXY_API_BASE"),
        ({"HTTPS_PROXY": "socks5://proxy.invalid:1080"}, "problem", "socks5"),
    ],
    ids=str,
)
def test_settings_that_lead_past_the_gateway_are_said(environ: dict[str, str], level: str, words: str) -> None:
    """With the variable to set, and without what a URL may hide."""
    found = list(bypasses(environ, "http://127.0.0.1:4000"))
    assert any(each.level == level and words in each.text for each in found), found
    assert "pw" not in str(found)


@pytest.mark.parametrize(
    ("no_proxy", "warned"),
    [("", True), ("example.com", True), ("127.0.0.1", False), ("127.0.0.0/8", False), ("*", False)],
)
def test_a_proxy_between_clients_and_the_gateway_is_said(no_proxy: str, *, warned: bool) -> None:
    """HTTPS_PROXY needs a NO_PROXY for loopback."""
    environ = {"HTTPS_PROXY": "http://proxy.invalid:3128", "NO_PROXY": no_proxy}
    found = [each for each in bypasses(environ, "http://127.0.0.1:4000") if each.topic == "proxy"]
    notes = [each for each in found if each.level == "note"]
    assert bool(notes) is warned
    assert all("export NO_PROXY=" in each.remedy and "127.0.0.1" in each.remedy for each in notes)


@pytest.mark.parametrize(
    ("server", "level", "words"),
    [
        ({"ledger": "missing/upstack.db"}, "problem", "is no folder"),
        ({"ledger": "notes.txt"}, "problem", "notes.txt"),
        ({"ledger": "new.db"}, "ok", "will be made"),
        ({"receipts": "off"}, "note", "nothing is recorded"),
    ],
    ids=str,
)
def test_a_ledger_that_cannot_be_used_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: dict[str, Any], level: str, words: str
) -> None:
    """A folder that is not there, a file that is no ledger; receipts that are off are a note."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("not a database, and long enough to be read as one " * 20)
    found = list(ledger(ServerConfig(**server)))
    assert any(each.level == level and words in each.text for each in found), found
    assert not (tmp_path / "new.db").exists(), "looking makes no file"


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
