"""`upstack ask`: through the gateway that runs, or one of its own; the answer stays, the receipt too."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.cli.calling import Terminal, background, call, eventually
from tests.gateway.serving import Serving, provider
from upstack.core.store.reading import list_receipts
from upstack.testing import Answer, EchoProvider, Fault, FlakyProvider, ScriptedProvider

ESCAPES = "red \x1b[31malert\x1b[0m\x07 and\u2028on"
CHEAP = '[routes.cheap]\nmodel = "echo/echo-1"\n[prices.cheap]\ninput = 1\noutput = 2\n'


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A gateway with one task, a provider that echoes, one that breaks off and one that sends escapes."""
    with ExitStack() as stack:
        echo = stack.enter_context(EchoProvider())
        cut = stack.enter_context(FlakyProvider(Fault.RESET_MID_BODY))
        rude = stack.enter_context(ScriptedProvider(lambda _: Answer(ESCAPES, finish_reason="length")))
        config = "".join(
            [
                CHEAP,
                '[tasks.triage]\ncandidates = ["cheap"]\n',
                provider("echo", echo.base_url),
                provider("cut", cut.base_url),
                provider("rude", rude.base_url),
            ]
        )
        yield stack.enter_context(Serving(tmp_path_factory.mktemp("gateway"), config))


@pytest.fixture(scope="module")
def echo() -> Iterator[EchoProvider]:
    """A provider that echoes."""
    with EchoProvider() as running:
        yield running


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_one_token_is_not_several(gateway: Serving, tmp_path: Path) -> None:
    """Numbers and their nouns agree."""
    assert "| 1 token in, 1 out |" in call("ask", "one", "--url", gateway.url, cwd=tmp_path).err


def test_the_answer_is_output_and_the_rest_is_not(gateway: Serving, tmp_path: Path) -> None:
    """Standard output holds the answer alone; route, tokens, cost and receipt are said beside it."""
    done = call("ask", "one two three", "--url", gateway.url, cwd=tmp_path)
    assert (done.code, done.out) == (0, "one two three\n")
    newest = list_receipts(gateway.ledger, 1)[0]
    assert done.err == f"cheap | 3 tokens in, 3 out | $0.000009 | {newest.id}\n"
    assert newest.model == "task/triage", "the only task is what is asked unless another is named"


def test_the_model_may_come_from_the_environment_and_the_system_message_goes_along(
    gateway: Serving, tmp_path: Path
) -> None:
    """UPSTACK_MODEL stands in for --model, and --model wins over it."""
    flags = ("--system", "be brief", "--url", f"{gateway.url}/v1/", "--json")
    done = call("ask", "hi", *flags, cwd=tmp_path, UPSTACK_MODEL="cheap")
    assert done.json["model"] == "cheap"
    receipt = gateway.receipt(done.json["receipt"])
    assert [message["role"] for message in receipt["request"]["messages"]] == ["system", "user"]
    assert (
        call("ask", "hi", "-m", "task/triage", *flags, cwd=tmp_path, UPSTACK_MODEL="no/such").json["route"] == "cheap"
    )


def test_a_question_may_come_from_standard_input(gateway: Serving, tmp_path: Path) -> None:
    """`-` reads it, line ends and all."""
    done = call("ask", "-", "--url", gateway.url, cwd=tmp_path, stdin="first line\nsecond line\n")
    assert (done.code, done.out) == (0, "first line\nsecond line\n")


def test_json_holds_answer_cost_and_reason(gateway: Serving, tmp_path: Path) -> None:
    """One document, with exact money."""
    done = call("ask", "one two", "--url", gateway.url, "--json", cwd=tmp_path)
    assert done.code == 0
    assert done.err == ""
    whole = done.json
    assert (whole["answer"], whole["error"], whole["finish_reason"]) == ("one two", None, "stop")
    assert (whole["cost_picodollars"], whole["cost_usd"]) == (6_000_000, "0.000006")
    assert "nothing certified" in whole["why"]


def test_a_stream_that_breaks_off_keeps_what_came_and_fails(gateway: Serving, tmp_path: Path) -> None:
    """The partial answer is printed, the reason follows, and the exit code is 1."""
    done = call("ask", "one two three four five six", "-m", "cut/x", "--url", gateway.url, cwd=tmp_path)
    assert done.out == "one two three \n"
    done.failed(1, "cut/x", "the answer is incomplete", "upstack why rcpt_")
    whole = call("ask", "one two three four five six", "-m", "cut/x", "--url", gateway.url, "--json", cwd=tmp_path)
    assert whole.code == 1
    assert whole.json["answer"] == "one two three "
    assert "incomplete" in whole.json["error"]


def test_an_answer_cannot_drive_the_terminal(gateway: Serving, tmp_path: Path) -> None:
    """Escapes of a model are shown in a terminal and kept in a file; an early end is said."""
    with Terminal("ask", "hi", "-m", "rude/x", "--url", gateway.url, cwd=tmp_path) as terminal:
        assert terminal.end() == 0
        assert "red \\x1b[31malert\\x1b[0m\\x07 and" in terminal.said
        assert "ended by length" in terminal.plain
    piped = call("ask", "hi", "-m", "rude/x", "--url", gateway.url, cwd=tmp_path)
    assert piped.out == f"{ESCAPES}\n"


def test_an_unknown_model_is_answered_with_near_ones(gateway: Serving, tmp_path: Path) -> None:
    """The gateway's own words reach the terminal."""
    asked = ("ask", "hi", "-m", "task/triag", "--url", gateway.url)
    call(*asked, cwd=tmp_path).failed(1, "task/triage")
    assert json.loads(call(*asked, "--json", cwd=tmp_path).err)["error"]["code"] == "model_not_found"


def test_a_named_gateway_that_does_not_run_is_an_error(tmp_path: Path) -> None:
    """With --url no other gateway is started behind the user's back."""
    url = f"http://127.0.0.1:{_free_port()}"
    call("ask", "hi", "-m", "echo/x", "--url", url, cwd=tmp_path).failed(1, url, "upstack serve")


def test_without_a_gateway_one_runs_for_the_call(echo: EchoProvider, tmp_path: Path) -> None:
    """It uses the configuration, leaves its receipt in the ledger, and is gone afterwards."""
    port = _free_port()
    (tmp_path / "upstack.toml").write_text(f"[server]\nport = {port}\n{CHEAP}{provider('echo', echo.base_url)}")
    done = call("ask", "one two", cwd=tmp_path)
    newest = list_receipts(tmp_path / "upstack.db", 2)
    assert (done.code, done.out) == (0, "one two\n"), done.err
    assert done.err == f"cheap | 2 tokens in, 2 out | $0.000006 | {newest[0].id}\n"
    assert [(each.model, each.state) for each in newest] == [("cheap", "answered")], "the only route was asked"
    with closing(socket.socket()) as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_stranger_on_the_port_is_not_asked(echo: EchoProvider, tmp_path: Path) -> None:
    """What listens where the gateway should be gets no question, as it is none."""
    with EchoProvider() as stranger:
        config = f"[server]\nport = {stranger.port}\n{CHEAP}{provider('echo', echo.base_url)}"
        (tmp_path / "upstack.toml").write_text(config)
        done = call("ask", "hi", cwd=tmp_path)
        assert (done.code, done.out) == (0, "hi\n"), done.err
        assert stranger.count == 0


def test_which_model_is_a_question_where_several_could_be_meant(echo: EchoProvider, tmp_path: Path) -> None:
    """The error lists them, and where there is none it says what to set."""
    config = f'[server]\nport = {_free_port()}\n{CHEAP}[routes.other]\nmodel = "echo/o"\n'
    (tmp_path / "upstack.toml").write_text(config + provider("echo", echo.base_url))
    call("ask", "hi", cwd=tmp_path).failed(2, "--model", "UPSTACK_MODEL", "cheap, other", "echo")
    (tmp_path / "upstack.toml").write_text(f"[server]\nport = {_free_port()}\n")
    call("ask", "hi", cwd=tmp_path).failed(2, "OPENAI_API_KEY", "upstack doctor")


def test_a_ledger_that_cannot_be_used_is_an_error(echo: EchoProvider, tmp_path: Path) -> None:
    """No receipt, no answer."""
    config = f'[server]\nport = {_free_port()}\nledger = "no/such/folder/upstack.db"\n{CHEAP}'
    (tmp_path / "upstack.toml").write_text(config + provider("echo", echo.base_url))
    call("ask", "hi", cwd=tmp_path).failed(1, "ledger")


@pytest.mark.parametrize("serving", [True, False], ids=["a gateway runs", "none runs"])
def test_ctrl_c_gives_up_at_once(tmp_path: Path, *, serving: bool) -> None:
    """Exit code 130 without a word, the provider's call cancelled, the receipt says so."""
    with ExitStack() as stack:
        stalls = stack.enter_context(FlakyProvider(Fault.STALL_BETWEEN_TOKENS))
        config = f'[providers.slow]\nbase_url = "{stalls.base_url}"\nauth = "none"\n'
        arguments = ["ask", "one two three four five", "-m", "slow/x"]
        if serving:
            running = stack.enter_context(Serving(tmp_path, config))
            arguments += ["--url", running.url]
        else:
            (tmp_path / "upstack.toml").write_text(f"[server]\nport = {_free_port()}\n{config}")
        asking = stack.enter_context(background(*arguments, cwd=tmp_path))
        assert asking.stdout is not None
        assert asking.stdout.read(14) == "one two three "
        asking.send_signal(signal.SIGINT)
        out, err = asking.communicate(timeout=10)
        assert asking.returncode == 130
        assert (out, err) == ("\n", "")
        eventually(lambda: [each.state for each in list_receipts(tmp_path / "upstack.db", 1)] == ["cancelled"])
        eventually(lambda: len(stalls.disconnects) == 1)
