"""`serve --replay`: recorded models behind the real gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.gateway.serving import Serving, chat
from upstack.core.traffic import RecordedAnswer, TrafficRow, write_traffic

TASK = '[tasks.t]\ncandidates = ["a/small"]\nreference = "b/large"\n'


def recorded(prompt: str, *names: str) -> TrafficRow:
    """A row that these models answered, each with a sample beside its answer."""
    answers = {name: RecordedAnswer(f"{name} says", 3, 2, samples=(f"{name} repeats",)) for name in names}
    return TrafficRow(prompt, "t", ({"role": "user", "content": prompt},), answers)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Two models; the prompt "dear" was put to the second alone."""
    folder = tmp_path_factory.mktemp("gateway")
    file: Path = folder / "traffic.jsonl"
    write_traffic(file, [recorded("both", "a/small", "b/large"), recorded("dear", "b/large")])
    with Serving(folder, TASK, "--replay", str(file)) as serving:
        yield serving


def test_a_prompt_that_one_model_lacks_goes_to_the_next_and_moves_no_other(gateway: Serving) -> None:
    """Nobody waits, and what the first model knows is still asked of it at once."""
    for _ in range(3):
        assert gateway.post(chat("task/t", "dear")).headers["x-upstack-route"] == "b/large"
        assert gateway.post(chat("task/t", "both")).headers["x-upstack-route"] == "a/small"


def test_choices_pass_through_the_gateway(gateway: Serving) -> None:
    """The official client gets the answer and its sample, plain and streamed, and the receipt counts both."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0) as client:
        plain = client.chat.completions.create(n=2, **chat("a/small", "both"))
        assert [choice.message.content for choice in plain.choices] == ["a/small says", "a/small repeats"]
        said = ["", ""]
        with client.chat.completions.create(n=2, stream=True, **chat("a/small", "both")) as stream:
            receipt = stream.response.headers["x-upstack-receipt"]
            for chunk in stream:
                for choice in chunk.choices:
                    said[choice.index] += choice.delta.content or ""
    assert said == ["a/small says", "a/small repeats"]
    assert gateway.receipt(receipt)["usage"]["output_tokens"] == 4
