"""What the log tells, and what it never does."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from tests import plain
from tests.gateway.serving import Serving, chat, provider
from upstack.application.gateway.auth import new_key
from upstack.core import telemetry
from upstack.testing import EchoProvider, ScriptedProvider, error_response

CONTENT = "patient-7-has-the-flu"
SECRET = "sk-canary-in-the-log-0123"


@pytest.mark.parametrize("kind", ["json", "text"])
def test_a_request_is_a_line_of_ids_and_sizes(tmp_path: Path, kind: str) -> None:
    """At debug, the loudest level; what was asked, answered, refused or went wrong is in none of them."""
    key, digest = new_key()
    config = f'[server]\nlog = "{kind}"\nlog_level = "debug"\n[keys.app]\nhash = "{digest}"\n'
    wrong = error_response(401, f"the key {SECRET} is wrong: {CONTENT}", code=CONTENT)
    with EchoProvider() as echo, ScriptedProvider(lambda _: wrong) as broken:
        config += provider("echo", echo.base_url) + provider("broken", broken.base_url)
        with Serving(tmp_path, config) as serving:
            bearer = {"authorization": f"Bearer {key}", "x-upstack-subject": CONTENT}
            answer = serving.post(chat("echo/m", CONTENT), **bearer)
            assert CONTENT in answer.text
            for body in (chat("broken/m", CONTENT), chat(f"nowhere/{CONTENT}"), {"model": CONTENT}, CONTENT):
                serving.post(body, **bearer)
            serving.post(chat("echo/m", CONTENT), authorization=f"Bearer {SECRET}")
            plain.get(f"{serving.url}/{CONTENT}?{CONTENT}", headers=bearer)
            raw = b'{"model": "' + CONTENT.encode() + b"\xff"
            plain.post(
                f"{serving.url}/v1/chat/completions", content=raw, headers=bearer | {"content-type": "application/json"}
            )
    receipt = answer.headers["x-upstack-receipt"]
    for hidden in (CONTENT, SECRET, key, digest.removeprefix("sha256:")):
        assert hidden not in serving.log
    lines = [line for line in serving.log.splitlines() if receipt in line]
    assert len(lines) == 1
    if kind == "json":
        for line in serving.log.splitlines():
            assert set(json.loads(line)) <= telemetry.FIELDS
        (told,) = (json.loads(line) for line in lines)
        assert (told["event"], told["key"], told["route"], told["status"], told["level"]) == (
            "request",
            "app",
            "echo/m",
            200,
            "debug",
        )
        assert told["request_bytes"] > len(CONTENT)
    else:
        assert f"upstack: request receipt={receipt} key=app" in lines[0]
        assert "upstack: refused status=401 code=invalid_api_key" in serving.log


def test_an_error_is_told_by_its_kind_and_places(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback of ours, of a library and of the event loop: where it was, never what it says or holds."""

    def fail(content: str) -> None:
        raise ValueError(f"cannot read {content}")

    async def leave_unhandled() -> None:
        telemetry.watch(asyncio.get_running_loop())
        asyncio.get_running_loop().call_soon(fail, CONTENT)
        await asyncio.sleep(0.01)

    for kind in ("json", "text"):
        telemetry.configure(kind, "debug")
        try:
            fail(CONTENT)
        except ValueError as error:
            telemetry.fault("reading failed", error)
            logging.getLogger("library").exception("cannot read %s", CONTENT)
        telemetry.log("told", answer_text=CONTENT, route="echo/m")
        asyncio.run(leave_unhandled())
        written = capsys.readouterr().err
        assert CONTENT not in written
        assert written.count("ValueError") == 3
        assert written.count("test_logs.py") >= 3
        assert "cannot read %s" in written
        assert "route" in written
        assert "answer_text" not in written
    telemetry.configure()


def test_what_is_below_the_level_is_not_written(tmp_path: Path) -> None:
    """At info, the default, no request has a line."""
    with EchoProvider() as echo, Serving(tmp_path, provider("echo", echo.base_url)) as serving:
        assert serving.post(chat("echo/m")).status_code == 200
        assert "upstack: listening on" in serving.log
        assert "upstack: request" not in serving.log
