"""Plans of several routes, served: what is asked, what goes out, and what a check keeps of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from tests import plain
from tests.gateway.serving import Serving, chat, provider
from upstack.application.gateway.state import build_state
from upstack.core.config import load_config
from upstack.core.store import proofs
from upstack.core.store.rows import moment
from upstack.core.store.standings import Summary
from upstack.inference.learning.scorer import Scorer
from upstack.inference.strategies.learned import Cascade, Precall
from upstack.inference.strategies.plain import Agree, Confidence, Single
from upstack.inference.strategies.policy import Policy, to_bytes
from upstack.testing import Answer, FakeProvider, ScriptedProvider
from upstack.testing.answers import ChatRequest, ToolCall
from upstack.testing.wire import error_response

ROUTES = ("ref/m", "a/m", "b/m")
Start = Callable[..., AbstractContextManager[Serving]]
TASK = """
[tasks.t]
reference = "ref/m"
candidates = ["a/m", "b/m"]
strategy = "auto"
grader = "exact"
shadow_rate = {rate}
shadow_budget_usd = {{}}
[prices."ref/m"]
input = 10
output = 40
[prices."a/m"]
input = 1
output = 4
[prices."b/m"]
input = 1
output = 4
"""


class Three:
    """Three providers; `says` is what each answers, an Answer or bytes, or a list of them, the last over and over."""

    def __init__(self) -> None:
        self.says: dict[str, Any] = {name: Answer("yes") for name in ("ref", "a", "b")}
        self.asked: list[str] = []

    def provider(self, name: str) -> FakeProvider:
        """One of them."""

        def choose(_: ChatRequest) -> Any:
            self.asked.append(name)
            said = self.says[name]
            return (said.pop(0) if len(said) > 1 else said[0]) if isinstance(said, list) else said

        return ScriptedProvider(choose)


@pytest.fixture
def three() -> Three:
    """What they say."""
    return Three()


@pytest.fixture
def serve(tmp_path: Path, three: Three) -> Iterator[Start]:
    """Start a gateway with a policy in force."""
    with three.provider("ref") as ref, three.provider("a") as a, three.provider("b") as b:
        both = "".join(provider(name, each.base_url) for name, each in (("ref", ref), ("a", a), ("b", b)))

        @contextmanager
        def start(policy: Policy, rate: float = 0.0, task: str = TASK) -> Iterator[Serving]:
            with Serving(tmp_path, both + task.format(rate=rate)) as serving:
                put_in_force(serving, policy)
                yield serving

        yield start


def put_in_force(serving: Serving, policy: Policy) -> None:
    """Issue a certificate, as if it had been earned, and wait until it serves."""
    state = build_state(load_config(serving.config), {"CANARY_KEY": "x"}, 1)
    arms = tuple((arm, state.routes[arm].version) for arm in policy.strategy.arms)
    words = f"put in force: {policy.words()}"
    evidence = (99, 99, 0, 0.0, 0.0, 0.1, 0.5)
    summary = Summary(policy.kind, arms, policy.threshold, words, 0.02, 0.95, 0.01, *evidence)
    now = time.time()
    kept = msgspec.json.encode(summary).decode()
    certificate = proofs.Certificate(
        f"cert_{now}", "t", 1, 0, moment(now), moment(now + 1000), to_bytes([policy]), kept
    )
    proofs.issue(str(serving.ledger), certificate)
    deadline = time.monotonic() + 20
    while "put in force" not in serving.log:
        assert time.monotonic() < deadline, serving.log
        time.sleep(0.02)


def ask(serving: Serving, text: str = "one two", **more: Any) -> httpx2.Response:
    """Ask the task."""
    answer = serving.post(chat("task/t", text, **more))
    assert answer.status_code == 200, answer.text
    return answer


def read_stream(serving: Serving, seen: list[str]) -> None:
    """Ask for a stream, and keep its lines as they come."""
    url = f"{serving.url}/v1/chat/completions"
    with plain.stream("POST", url, json=chat("task/t", stream=True), timeout=30) as answer:
        for line in answer.iter_lines():
            seen.append(line)  # noqa: PERF402 - what came before it breaks counts


def told(answer: httpx2.Response) -> str:
    """What a plain answer says."""
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


AGREE = Policy(Agree(("a/m", "b/m")), 0.0)


def test_two_that_agree_answer_and_the_reference_where_they_differ(serve: Start, three: Three) -> None:
    """What is the same to the grader is the same."""
    three.says |= {"a": Answer("Yes"), "b": Answer("yes "), "ref": Answer("no")}
    with serve(AGREE) as serving:
        answer = ask(serving)
        assert (told(answer), answer.headers["x-upstack-route"], three.asked) == ("Yes", "a/m", ["a", "b"])
        receipt = serving.receipt(answer.headers["x-upstack-receipt"])
        assert (receipt["strategy"], receipt["route"], receipt["plan"]) == ("agree", "a/m", "a/m, b/m, ref/m, a/m, b/m")
        assert [each["route"] for each in receipt["attempts"]] == ["a/m", "b/m"]
        assert receipt["cost_picodollars"] == sum(each["cost_picodollars"] for each in receipt["attempts"])
        three.says["b"] = Answer("perhaps")
        three.asked.clear()
        answer = ask(serving)
        assert (told(answer), answer.headers["x-upstack-route"]) == ("no", "ref/m")
        assert three.asked == ["a", "b", "ref"]


def test_an_arm_that_fails_leaves_it_to_the_reference(serve: Start, three: Three) -> None:
    """One alone was never proved."""
    three.says |= {"b": error_response(500, "down"), "ref": Answer("no")}
    with serve(AGREE) as serving:
        answer = ask(serving)
        assert (told(answer), three.asked) == ("no", ["a", "b", "ref"])
        three.says["ref"] = error_response(500, "down, too")
        assert told(ask(serving)) == "yes"  # the last resort, as before any certificate


def test_a_route_is_asked_again_by_another_name(serve: Start, three: Three) -> None:
    """Self-consistency: what it says twice is served, and both answers are paid."""
    three.says |= {"a": [Answer("one"), Answer("One"), Answer("two"), Answer("three")], "ref": Answer("no")}
    twice = TASK.replace("b/m", "a-again") + '[routes.a-again]\nmodel = "a/m"\n'
    with serve(Policy(Agree(("a/m", "a-again")), 0.0), task=twice) as serving:
        answer = ask(serving)
        assert (told(answer), answer.headers["x-upstack-route"], three.asked) == ("one", "a/m", ["a", "a"])
        receipt = serving.receipt(answer.headers["x-upstack-receipt"])
        assert [each["route"] for each in receipt["attempts"]] == ["a/m", "a-again"]
        assert receipt["cost_picodollars"] == sum(each["cost_picodollars"] for each in receipt["attempts"]) > 0
        assert told(ask(serving)) == "no"


def test_a_confident_answer_is_served_and_another_is_not(serve: Start, three: Three) -> None:
    """An answer without log-probabilities is not trusted."""
    three.says["ref"] = Answer("no")
    with serve(Policy(Confidence("a/m"), 0.5)) as serving:
        assert told(ask(serving)) == "no"
        assert three.asked == ["a", "ref"]


def _scorer(arms: int, bias: float) -> Scorer:
    from upstack.inference.learning import signs
    from upstack.inference.learning.scorer import of

    count = len(of("x", [signs.Answer("x")] * arms, [True] * (arms * (arms - 1) // 2)))
    return Scorer(arms, (0.0,) * count, (1.0,) * count, ((0.0,) * count,) * 3, (bias, 0.0, 0.0))


@pytest.mark.parametrize(("bias", "asked"), [(-3.0, ["a"]), (3.0, ["a", "ref"])])
def test_a_learned_score_decides_after_the_answer(serve: Start, three: Three, bias: float, asked: list[str]) -> None:
    """A cascade."""
    pytest.importorskip("numpy")
    with serve(Policy(Cascade(("a/m",), _scorer(1, bias)), 0.0)) as serving:
        ask(serving)
        assert three.asked == asked


@pytest.mark.parametrize(("bias", "asked"), [(-3.0, ["a"]), (3.0, ["ref"])])
@pytest.mark.parametrize("stream", [False, True])
def test_a_learned_score_decides_before_the_call(
    serve: Start, three: Three, bias: float, asked: list[str], stream: bool
) -> None:
    """A stream flows as it comes then."""
    pytest.importorskip("numpy")
    with serve(Policy(Precall("a/m", _scorer(0, bias)), 0.0)) as serving:
        answer = ask(serving, stream=stream)
        assert three.asked == asked
        assert ("data: [DONE]" in answer.text) == stream


def test_tool_calls_agree_only_where_they_call_the_same(serve: Start, three: Three) -> None:
    """In whatever order the arguments stand, and whatever the call's id."""
    tools = [{"type": "function", "function": {"name": "stop", "parameters": {"type": "object"}}}]
    three.says |= {
        "a": Answer(None, tool_calls=(ToolCall("stop", '{"line": 1, "now": true}'),)),
        "b": Answer(None, tool_calls=(ToolCall("stop", '{"now": true, "line": 1}'),)),
        "ref": Answer("no"),
    }
    with serve(AGREE) as serving:
        assert ask(serving, tools=tools).headers["x-upstack-route"] == "a/m"
        three.says["b"] = Answer(None, tool_calls=(ToolCall("start", '{"now": true, "line": 1}'),))
        assert ask(serving, tools=tools).headers["x-upstack-route"] == "ref/m"


def test_a_stream_is_held_back_until_it_is_decided(serve: Start, three: Three) -> None:
    """Then all of it goes out, as one that was never held back."""
    three.says |= {"a": Answer("one two three"), "b": Answer("one two three"), "ref": Answer("no no")}
    with serve(AGREE) as serving:
        held = ask(serving, stream=True)
        three.asked.clear()
        assert events(held.text) == "one two three"
        assert held.text.rstrip().endswith("data: [DONE]")
        three.says["b"] = Answer("two")
        answer = ask(serving, stream=True)
        assert (events(answer.text), answer.headers["x-upstack-route"]) == ("no no", "ref/m")
        assert serving.receipt(answer.headers["x-upstack-receipt"])["state"] == "answered"


def events(text: str) -> str:
    """What a stream says."""
    payloads = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: {")]
    deltas = [choice["delta"] for payload in payloads for choice in json.loads(payload)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def test_a_stream_that_is_long_held_back_is_kept_alive(serve: Start, three: Three) -> None:
    """Comments come meanwhile; a failure then is an event, and no clean end."""
    three.says |= {"a": Answer("a b c d e f g h i", between_chunks_s=0.7), "b": Answer("y"), "ref": Answer("no")}
    with serve(AGREE) as serving:
        text = ask(serving, stream=True).text
        assert text.startswith(": an answer is being chosen\n\n")
        assert events(text) == "no"
        assert text.rstrip().endswith("data: [DONE]")
        three.says |= dict.fromkeys(("b", "ref"), error_response(500, "down"))
        three.says["a"] = [three.says["a"], error_response(500, "down")]
        seen: list[str] = []
        with pytest.raises(httpx2.RemoteProtocolError):
            read_stream(serving, seen)
        assert seen[0] == ": an answer is being chosen"
        assert any("No route answered" in line for line in seen)
        assert "data: [DONE]" not in seen


def test_a_check_keeps_what_every_route_said_for_the_decision(serve: Start, three: Three) -> None:
    """Nothing that was asked is asked again, and nothing is paid for twice."""
    three.says |= {"a": Answer("x"), "b": Answer("y"), "ref": Answer("no")}
    with serve(AGREE, 1.0) as serving:
        check = ask(serving).headers["x-upstack-receipt"]
        found = until_rows(
            serving, f"SELECT route, attempts, cost_picodollars FROM receipts WHERE check_of = '{check}'", 2
        )
        assert sorted(found) == [("a/m", "[]", 0), ("b/m", "[]", 0)]
        assert three.asked == ["a", "b", "ref"]
        three.says |= {"b": Answer("x")}
        three.asked.clear()
        check = ask(serving).headers["x-upstack-receipt"]
        found = until_rows(serving, f"SELECT route, cost_picodollars > 0 FROM receipts WHERE check_of = '{check}'", 2)
        assert sorted(found) == [("b/m", 0), ("ref/m", 1)]
        assert three.asked == ["a", "b", "ref"]


def until_rows(serving: Serving, query: str, count: int) -> list[tuple[Any, ...]]:
    """Wait for so many rows."""
    deadline = time.monotonic() + 10
    while len(found := serving.rows(query)) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def test_a_revocation_is_served_within_a_second(serve: Start, three: Three) -> None:
    """No network is needed: the ledger's word is enough, and the reference answers."""
    with serve(Policy(Single("a/m"), 0.0)) as serving:
        assert ask(serving).headers["x-upstack-route"] == "a/m"
        proofs.end(str(serving.ledger), "t", moment(time.time()), "revoked: by hand")
        began = time.monotonic()
        while ask(serving).headers["x-upstack-route"] != "ref/m":
            assert time.monotonic() < began + 5
        assert time.monotonic() < began + 1.0


def test_answers_that_look_different_make_more_requests_checks(serve: Start, three: Three) -> None:
    """By what is free to see of them: no route is asked for it."""
    three.says["a"] = Answer("one two three")
    with serve(Policy(Single("a/m"), 0.0), 0.02) as serving:
        for _ in range(200):
            ask(serving)
        assert "look different" not in serving.log
        three.says["a"] = Answer("one two three " * 20)
        for _ in range(12):
            ask(serving)
        assert "task t: answers of a/m look different lately, and more requests become checks" in serving.log
        for _ in range(60):
            ask(serving)
        assert 2 <= len(until_rows(serving, "SELECT id FROM receipts WHERE coin = 0.2", 2)) <= 40
