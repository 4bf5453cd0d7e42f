"""Providers that refuse: whose fault it is, what the caller sees, and who is asked afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.gateway.serving import Serving, chat, provider
from upstack.testing import Answer, Move, ScriptedProvider, error_response
from upstack.testing.answers import ChatRequest
from upstack.testing.providers import Script

CANARY = "sk-canary-0123456789"
SCRIPTS: dict[str, Script] = {
    "fine": Answer("fine"),
    "long": error_response(400, "this model's maximum context length is 8", code="context_length_exceeded"),
    "key": error_response(400, f"the key {CANARY} is wrong", code="invalid_api_key"),
    "quoting": error_response(400, f"strange: Bearer {CANARY}", code=CANARY),
    "quoting-500": error_response(500, f"strange: {CANARY}", code=CANARY),
    "limited": error_response(429, "slow down", [("retry-after", "60")], "rate_limit_exceeded"),
    "overloaded": error_response(503, "slow down", [("retry-after", "60")]),
    "broken": error_response(500, "no"),
    "reset": (Move.RESET,),
    "proxied": error_response(502, "no"),
}
PRICES = "".join(f'[prices."fake/{model}"]\ninput = 1.0\noutput = 2.0\n' for model in ("reset", "broken", "proxied"))
TASKS = "".join(
    f'[tasks."{first}"]\ncandidates = ["fake/{first}"]\nreference = "fake/fine"\n' for first in ("long", "limited")
)


@pytest.fixture(scope="module")
def asked() -> Counter[str]:
    """How often each model was asked."""
    return Counter()


@pytest.fixture(scope="module")
def gateway(asked: Counter[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A gateway in front of a provider whose models refuse in a way of their own; it retries nothing."""

    def script(request: ChatRequest) -> Script:
        asked[request.model] += 1
        return SCRIPTS[request.model.removeprefix("two-")]

    with ScriptedProvider(script) as fake:
        config = "[server]\nretries = 0\n" + PRICES + TASKS
        config += provider("fake", fake.base_url, 'api_key = "env:KEY_ONE"')
        config += f'[providers.two]\nbase_url = "{fake.base_url}"\napi_keys = ["env:KEY_ONE", "env:KEY_TWO"]\n'
        env = {"KEY_ONE": CANARY, "KEY_TWO": f"{CANARY}-two"}
        with Serving(tmp_path_factory.mktemp("gateway"), config, env=env) as serving:
            yield serving


def test_what_one_model_cannot_take_the_next_one_may(gateway: Serving, asked: Counter[str]) -> None:
    """A context that is too long for one model is asked of the next, each time anew: the first is not at fault."""
    before = asked["long"]
    for _ in range(8):
        answer = gateway.post(chat("task/long"))
        assert answer.status_code == 200
        assert answer.headers["x-upstack-route"] == "fake/fine"
    assert asked["long"] - before == 8


def test_what_no_model_can_take_comes_back_in_the_providers_words(gateway: Serving, asked: Counter[str]) -> None:
    """With no other route left the caller sees the provider's own 400, however often, and one call is made for each."""
    for model in ("fake/long", "two/two-long"):
        upstream = model.partition("/")[2]
        before = asked[upstream]
        for _ in range(8):
            answer = gateway.post(chat(model))
            assert answer.status_code == 400
            assert answer.json()["error"]["code"] == "context_length_exceeded"
        assert asked[upstream] - before == 8
    receipt = gateway.receipt(answer.headers["x-upstack-receipt"])
    assert (receipt["error"], receipt["cost_picodollars"]) == ("request_unfit", 0)


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("key", 502, "provider_auth"),
        ("quoting", 400, "***"),
        ("quoting-500", 502, "bad_status"),
    ],
)
def test_our_key_never_reaches_a_caller(gateway: Serving, model: str, status: int, code: str) -> None:
    """A provider that quotes our key, in its words or as a code, is not quoted; a wrong key is no caller's fault."""
    answer = gateway.post(chat(f"fake/{model}"))
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    receipt = gateway.get(f"/v1/receipts/{answer.headers['x-upstack-receipt']}").text
    for shown in (answer.text, str(answer.headers), receipt, gateway.log):
        assert "canary" not in shown


@pytest.mark.parametrize(
    ("model", "first", "calls"),
    [
        ("fake/limited", 429, 1),
        ("two/two-limited", 429, 2),
        ("fake/overloaded", 502, 1),
    ],
)
def test_nobody_is_asked_before_its_retry_after(
    gateway: Serving, asked: Counter[str], model: str, first: int, calls: int
) -> None:
    """While all of a route's keys want to be left alone its callers hear so at once, with the time that is left."""
    assert gateway.post(chat(model)).status_code == first
    for _ in range(10):
        answer = gateway.post(chat(model))
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "rate_limited"
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert "x-upstack-receipt" not in answer.headers, "nothing was asked of any route"
    assert asked[model.partition("/")[2]] == calls


def test_the_next_route_serves_while_the_first_is_left_alone(gateway: Serving, asked: Counter[str]) -> None:
    """A plan with another route goes on without asking the one that sent a Retry-After."""
    gateway.post(chat("task/limited"))
    before = asked["limited"]
    for _ in range(5):
        assert gateway.post(chat("task/limited")).status_code == 200
    assert asked["limited"] == before


def test_a_lone_route_is_not_shut_by_our_guess(gateway: Serving, asked: Counter[str]) -> None:
    """Where nobody asked for a rest, the last route is asked however often it failed."""
    for _ in range(10):
        assert gateway.post(chat("fake/broken")).status_code == 502
    assert asked["broken"] == 10


@pytest.mark.parametrize(("model", "cost"), [("broken", 0), ("reset", None), ("proxied", None)])
def test_what_may_be_billed_has_no_known_cost(gateway: Serving, model: str, cost: int | None) -> None:
    """The provider's own refusal is free; a connection that broke after the request, or a proxy's word, is unknown."""
    answer = gateway.post(chat(f"fake/{model}"))
    assert answer.status_code == 502
    assert gateway.receipt(answer.headers["x-upstack-receipt"])["cost_picodollars"] == cost
