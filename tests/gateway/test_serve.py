"""The gateway as its callers see it: answers, streams, receipts, endpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests import plain
from tests.gateway.serving import Serving, chat, provider
from upstack.testing import Answer, EchoProvider, ScriptedProvider, error_response
from upstack.testing.answers import ChatRequest

PRICES = '[prices."echo/echo-1"]\ninput = 1.0\noutput = 2.0\n'


@pytest.fixture(scope="module")
def echo() -> Iterator[EchoProvider]:
    """A provider that repeats what it is told."""
    with EchoProvider() as fake:
        yield fake


@pytest.fixture(scope="module")
def gateway(echo: EchoProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A gateway in front of it."""
    config = (
        PRICES
        + '[routes.cheap]\nmodel = "echo/echo-1"\n[tasks.triage]\ncandidates = ["cheap"]\nreference = "echo/echo-2"\n'
        + '[tasks.private]\nreference = "cheap"\ncapture = "none"\n'
        + '[tasks.hashed]\nreference = "cheap"\ncapture = "hash"\n'
        + f'[providers.echo]\nbase_url = "{echo.base_url}"\napi_key = "env:ECHO_SECRET"\n'
    )
    with Serving(tmp_path_factory.mktemp("gateway"), config, env={"ECHO_SECRET": "sk-ours-alone"}) as serving:
        yield serving


def client(gateway: Serving) -> openai.OpenAI:
    """The official client."""
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="the-callers-own", max_retries=0)


def test_openai_client_gets_an_answer_and_its_receipt(gateway: Serving) -> None:
    """The official client works unmodified, and the receipt it is pointed to tells what happened."""
    raw = client(gateway).chat.completions.with_raw_response.create(**chat("cheap", "eins zwei"))
    completion = raw.parse()
    assert completion.choices[0].message.content == "eins zwei"
    receipt = gateway.receipt(raw.headers["x-upstack-receipt"])
    assert receipt["state"] == "answered"
    assert receipt["route"] == "cheap"
    assert receipt["answer"]["choices"][0]["message"]["content"] == "eins zwei"
    usage = completion.usage
    assert usage is not None
    assert receipt["cost_picodollars"] == usage.prompt_tokens * 1_000_000 + usage.completion_tokens * 2_000_000
    assert any("caller asked for cheap" in line for line in receipt["words"])


def test_openai_client_streams(gateway: Serving) -> None:
    """A stream arrives in pieces, ends cleanly, and its receipt holds the whole answer and its cost."""
    with (
        client(gateway).chat.completions.with_raw_response.create(**chat("task/triage", stream=True)).parse() as stream
    ):
        chunks = list(stream)
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "one two three"
    assert all(chunk.choices for chunk in chunks), "nobody asked for the usage chunk"
    [(receipt_id, cost)] = gateway.rows("select id, cost_picodollars from receipts order by seq desc limit 1")
    receipt = gateway.receipt(receipt_id)
    assert (receipt["state"], receipt["task"], receipt["stream"]) == ("answered", "triage", True)
    assert receipt["answer"]["choices"][0]["message"]["content"] == "one two three"
    assert cost > 0


def test_usage_chunk_reaches_a_caller_who_asks(gateway: Serving) -> None:
    """`stream_options.include_usage` gives the usage chunk, last."""
    stream = client(gateway).chat.completions.create(
        **chat("cheap", stream=True, stream_options={"include_usage": True})
    )
    chunks = list(stream)
    assert chunks[-1].usage is not None
    assert not chunks[-1].choices


def test_langchain_talks_to_it_unmodified(gateway: Serving) -> None:
    """langchain-openai gets plain and streamed answers."""
    model = ChatOpenAI(model="cheap", base_url=f"{gateway.url}/v1", api_key=SecretStr("x"), max_retries=0)
    assert model.invoke("hello there").content == "hello there"
    assert "".join(str(chunk.content) for chunk in model.stream("hello there")) == "hello there"


def test_tools_structured_output_n_and_logprobs_pass_through(gateway: Serving) -> None:
    """What the provider takes passes unharmed, and so does what it gives."""
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    forced = {"type": "function", "function": {"name": "look"}}
    message = (
        client(gateway).chat.completions.create(**chat("cheap", tools=[tool], tool_choice=forced)).choices[0].message
    )
    assert message.tool_calls
    assert json.loads(message.tool_calls[0].function.arguments) is not None
    two = client(gateway).chat.completions.create(**chat("cheap", n=2, logprobs=True))
    assert len(two.choices) == 2
    assert two.choices[0].logprobs is not None
    streamed = client(gateway).chat.completions.create(**chat("cheap", stream=True, tools=[tool], tool_choice=forced))
    calls = [call for chunk in streamed for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    assert calls


def test_body_reaches_the_provider_unchanged_but_for_the_model(gateway: Serving, echo: EchoProvider) -> None:
    """Every member stays byte for byte, known or not, whatever its number format or order."""
    body = (
        b'{"seed":1.50,"model":"cheap","messages":[{"role":"user","content":[{"type":"text","text":"a"},'
        b'{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}],"x_new":{"b" : [1, 2]}}'
    )
    answer = plain.post(
        f"{gateway.url}/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 200
    assert echo.requests[-1].body == body.replace(b'"cheap"', b'"echo-1"')


def test_nothing_of_the_callers_credentials_goes_upstream(gateway: Serving, echo: EchoProvider) -> None:
    """The provider sees our key and none of the caller's Authorization, cookies or hop-by-hop headers."""
    headers = {"authorization": "Bearer CANARY", "cookie": "CANARY", "x-api-key": "CANARY", "te": "CANARY"}
    gateway.post(chat("cheap"), **headers, **{"openai-beta": "assistants=v2", "connection": "keep-alive, x-hop"})
    seen = echo.requests[-1]
    told = repr(seen.headers)
    assert "CANARY" not in told
    assert "x-hop" not in told
    assert seen.header("authorization") == "Bearer sk-ours-alone"
    assert seen.header("openai-beta") == "assistants=v2"


def test_secrets_appear_nowhere(gateway: Serving) -> None:
    """No endpoint, log or ledger shows the provider's key."""
    gateway.post(chat("cheap"))
    told = gateway.log + "".join(gateway.get(path).text for path in ("/v1/models", "/metrics", "/admin/health"))
    assert "sk-ours-alone" not in told
    for path in gateway.folder.glob("upstack.db*"):
        assert b"sk-ours-alone" not in path.read_bytes()


@pytest.mark.parametrize(("task", "kept"), [("private", None), ("hashed", "sha256:")])
def test_capture_decides_what_the_ledger_keeps(gateway: Serving, task: str, kept: str | None) -> None:
    """`capture = "none"` keeps no content, `"hash"` a salted digest; both keep the receipt."""
    secret = f"unspeakable-{task}"
    answer = gateway.post(chat(f"task/{task}", secret))
    receipt = gateway.receipt(answer.headers["x-upstack-receipt"])
    assert receipt["state"] == "answered"
    if kept is None:
        assert receipt["request"] is None
        assert receipt["answer"] is None
    else:
        assert receipt["request"].startswith(kept)
        again = gateway.receipt(gateway.post(chat(f"task/{task}", secret)).headers["x-upstack-receipt"])
        assert again["request"] != receipt["request"], "salted: the same content does not show as the same"
    for path in gateway.folder.glob("upstack.db*"):
        assert secret.encode() not in path.read_bytes()


def test_models_lists_routes_and_tasks(gateway: Serving) -> None:
    """`GET /v1/models`, through the client, names what may be asked for."""
    names = {model.id for model in client(gateway).models.list()}
    assert {"cheap", "task/triage", "echo/echo-2"} <= names


def test_unknown_model_is_a_404_with_near_names(gateway: Serving) -> None:
    """A misspelt route is a NotFoundError that names the right one."""
    with pytest.raises(openai.NotFoundError, match="cheap"):
        client(gateway).chat.completions.create(**chat("chaep"))


def test_health_endpoints_and_metrics(gateway: Serving) -> None:
    """Alive, ready, and metrics in the Prometheus format."""
    gateway.post(chat("cheap"))
    assert gateway.get("/healthz").json() == {"status": "alive"}
    assert gateway.get("/readyz").json() == {"ready": True, "reasons": []}
    metrics = gateway.get("/metrics").text
    assert 'upstack_requests_total{route="cheap",state="answered"' in metrics
    assert "upstack_request_seconds_bucket" in metrics


def test_unknown_receipt_and_unknown_endpoint_are_404(gateway: Serving) -> None:
    """Both in the OpenAI error shape."""
    for path in ("/v1/receipts/rcpt_nothing", "/v1/nothing"):
        answer = gateway.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_unknown_price_is_unknown(gateway: Serving) -> None:
    """A route without a price costs "unknown", never 0."""
    answer = gateway.post(chat("echo/echo-2"))
    receipt = gateway.receipt(answer.headers["x-upstack-receipt"])
    assert receipt["cost_picodollars"] is None
    assert receipt["cost_usd"] is None


def test_a_providers_400_reaches_the_caller_in_its_own_words(tmp_path: Path) -> None:
    """A request the provider calls wrong comes back with the provider's status and body, and is not retried."""
    refusing = ScriptedProvider([error_response(400, "temperature is above 2", code="invalid_value")])
    with refusing as fake, Serving(tmp_path, provider("fake", fake.base_url)) as serving:
        answer = serving.post(chat("fake/m"))
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "invalid_value"
        assert fake.count == 1
        assert serving.receipt(answer.headers["x-upstack-receipt"])["state"] == "failed"


def test_load_spreads_over_keys(tmp_path: Path) -> None:
    """Several keys of one provider share the load."""
    with ScriptedProvider(lambda _: Answer("fine")) as fake:
        config = f'[providers.fake]\nbase_url = "{fake.base_url}"\napi_keys = ["env:KEY_ONE", "env:KEY_TWO"]\n'
        with Serving(tmp_path, config, env={"KEY_ONE": "one", "KEY_TWO": "two"}) as serving:
            for _ in range(60):
                assert serving.post(chat("fake/m")).status_code == 200
            used = [request.header("authorization") for request in fake.requests]
            assert 10 < used.count("Bearer one") < 50


def test_a_key_that_is_refused_is_left_alone(tmp_path: Path) -> None:
    """The key the provider refuses is tried once; its requests and all others go by the other key."""

    def script(_: ChatRequest) -> Answer | bytes:
        refused = fake.requests[-1].header("authorization") == "Bearer one"
        return error_response(401, "no", code="invalid_api_key") if refused else Answer("fine")

    with ScriptedProvider(script) as fake:
        config = f'[providers.fake]\nbase_url = "{fake.base_url}"\napi_keys = ["env:KEY_ONE", "env:KEY_TWO"]\n'
        with Serving(tmp_path, config, env={"KEY_ONE": "one", "KEY_TWO": "two"}) as serving:
            for _ in range(30):
                assert serving.post(chat("fake/m")).status_code == 200
            used = [request.header("authorization") for request in fake.requests]
            assert used.count("Bearer one") == 1


def test_binding_beyond_loopback_is_refused(tmp_path: Path) -> None:
    """Without keys nobody else may reach the port."""
    serving = Serving(tmp_path, "", "--host", "0.0.0.0")
    with pytest.raises(AssertionError, match="only loopback"):
        serving.start()
    assert serving.process.wait(10) == 2


def test_models_lists_nothing_that_callers_made_up(gateway: Serving) -> None:
    """A name that was asked for once is served, and is no offer of ours."""
    assert gateway.post(chat("echo/made-up")).status_code == 200
    assert "echo/made-up" not in gateway.get("/v1/models").text
