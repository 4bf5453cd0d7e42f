"""The converters, on rows made up here, and on the sets themselves where UPSTACK_DATA names their folder."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.converters.__main__ import PROJECT, main
from benchmarks.converters.sources import route_name
from upstack.core.config import PriceConfig
from upstack.core.traffic import TrafficRow, read_traffic

DATA = os.environ.get("UPSTACK_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="UPSTACK_DATA is not set: the recorded sets are not here")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder that UPSTACK_DATA names."""
    monkeypatch.setenv("UPSTACK_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def save(path: Path, text: str) -> Path:
    """Write a file, gzip where the name ends in `.gz`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def save_csv(path: Path, *rows: Sequence[object]) -> Path:
    """Write a CSV file; the first row is its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.with_suffix(".tmp")
    with plain.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return save(path, plain.read_text())


def convert(name: str, out: Path, *options: str) -> None:
    """Run the command; it succeeds."""
    assert main([name, str(out), *options]) == 0


def rows_of(path: Path) -> list[TrafficRow]:
    """Read a converted file whole."""
    return list(read_traffic(path))


def prompt(row: TrafficRow) -> Any:
    """The content of a row's only message."""
    (message,) = row.messages
    assert message["role"] == "user"
    return message["content"]


ZEROEVAL = {
    "task": "sums",
    "id": "s1",
    "prompt": "1 + 1?",
    "reference": "2",
    "models": {
        "gpt-4o-2024-08-06": {"answer": "2", "correct": 1, "in_tok": 9, "out_tok": 7, "output": '{"answer": "2"}'},
        "Mistral-Large-2": {"answer": "3", "correct": 0, "in_tok": 9, "out_tok": 5},
        "gemma-2-9b-it": {"answer": float("nan"), "correct": 0, "in_tok": 9, "out_tok": 4},
    },
}


def test_zeroeval_becomes_traffic_and_prices(data: Path, tmp_path: Path) -> None:
    """The whole output where there is one, else the answer, else nothing; prices as upstack.toml reads them."""
    save(data / "zeroeval/dev.jsonl.gz", json.dumps(ZEROEVAL) + "\n")
    prices = {"note": "made up", "prices": {"gpt-4o-2024-08-06": [2.5, 10], "gemma-2-9b-it": [0.075, 0.3]}}
    save(data / "zeroeval/prices.json", json.dumps(prices))
    convert("zeroeval", tmp_path / "out")
    (row,) = rows_of(tmp_path / "out/zeroeval.jsonl.gz")
    assert (row.id, row.task, row.truth, prompt(row)) == ("sums/s1", "zeroeval-sums", "2", "1 + 1?")
    said = {name: (a.content, a.loss, a.input_tokens, a.output_tokens) for name, a in row.answers.items()}
    assert said == {
        "openai/gpt-4o-2024-08-06": ('{"answer": "2"}', 0.0, 9, 7),
        "mistral/Mistral-Large-2": ("3", 1.0, 9, 5),
        "google/gemma-2-9b-it": ("", 1.0, 9, 4),
    }
    listed = tomllib.loads((tmp_path / "out/zeroeval.prices.toml").read_text())["prices"]
    assert msgspec.convert(listed, dict[str, PriceConfig]) == {
        "openai/gpt-4o-2024-08-06": PriceConfig(input=2.5, output=10),
        "google/gemma-2-9b-it": PriceConfig(input=0.075, output=0.3),
    }


def test_mmlu_pro_joins_grades_and_tokens(data: Path, tmp_path: Path) -> None:
    """Rows are joined by question, whatever the order; content is unknown; input tokens are a fourth of characters."""
    save_csv(
        data / "mmlupro/dev_correct.csv.gz",
        ["qid", "category", "ref", "prompt", "Yi-34B", "Qwen1.5-7B-Chat"],
        [7, "law", "B", "Who?\nA. a\nB. b", 1, 0],
        [8, "law", "A", "x" * 400, 0, 0],
    )
    tokens: list[list[object]] = [["qid", "Yi-34B", "Qwen1.5-7B-Chat"], [8, 30, 40], [7, 10, 20]]
    save_csv(data / "mmlupro/dev_outtok_approx.csv.gz", *tokens)
    convert("mmlu-pro", tmp_path / "out")
    first, second = rows_of(tmp_path / "out/mmlu-pro.jsonl.gz")
    assert (first.id, first.truth, first.answers["01-ai/Yi-34B"].loss) == ("law/7", "B", 0.0)
    answer = second.answers["qwen/Qwen1.5-7B-Chat"]
    assert (answer.content, answer.input_tokens, answer.output_tokens, answer.loss) == (None, 100, 40, 1.0)


def test_routellm_is_told_by_its_columns(data: Path, tmp_path: Path) -> None:
    """Both files are converted; a named one is either, whatever its name."""
    gsm8k = [
        ["prompt", "mistralai/Mixtral-8x7B-Instruct-v0.1", "mistralai/Mixtral-8x7B-Instruct-v0.1_response"],
        ["How many?", "False", "Five\n#### 5"],
    ]
    save_csv(data / "routellm/gsm8k_responses.csv.gz", *gsm8k)
    save_csv(
        data / "routellm/mmlu_dev.csv.gz", ["prompt", "mixtral", "gpt4_1106", "subject"], ["Q", "True", "False", "law"]
    )
    convert("routellm", tmp_path / "out")
    (row,) = rows_of(tmp_path / "out/routellm-gsm8k.jsonl.gz")
    answer = row.answers["mistral/Mixtral-8x7B-Instruct-v0.1"]
    assert (answer.content, answer.loss, answer.input_tokens) == ("Five\n#### 5", 1.0, 2)
    (row,) = rows_of(tmp_path / "out/routellm-mmlu.jsonl.gz")
    losses = {name: (a.content, a.loss) for name, a in row.answers.items()}
    assert losses == {"mistral/Mixtral-8x7B-Instruct-v0.1": (None, 0.0), "openai/gpt-4-1106-preview": (None, 1.0)}
    other = save_csv(tmp_path / "held.csv", gsm8k[0], gsm8k[1], gsm8k[1])
    convert("routellm", tmp_path / "other", "--file", str(other))
    assert len(rows_of(tmp_path / "other/routellm-gsm8k.jsonl.gz")) == 2


def test_banking77_has_intents_by_name_and_a_start_set(data: Path, tmp_path: Path) -> None:
    """Truth and content are written alike: a name where one is known, else the number."""
    folder = data / "banking77"
    save_csv(folder / "fewshot_train.csv", ["text", "label_name", "label"], ["t", "age_limit", 1])
    save_csv(folder / "train.csv", ["text", "label"], ["How old?", 1], ["What?", 2])
    save_csv(folder / "dev_gpt4.csv", ["text", "label", "gpt-label"], ["Am I too old?", 1, 1])
    save_csv(
        folder / "more_gpt4.csv",
        ["text", "label", "gpt-label", "gpt4-label_nonrep", "gpt35-label_rep"],
        ["?", 1, 1, 77, 2],
    )
    convert("banking77", tmp_path / "out")
    first, second = rows_of(tmp_path / "out/banking77.jsonl.gz")
    assert (first.truth, list(first.answers)) == ("age_limit", ["openai/gpt-4"])
    said = {name: (a.content, a.loss) for name, a in second.answers.items()}
    assert said == {
        "openai/gpt-4": ("age_limit", 0.0),
        "openai/gpt-4-nonrep": ("77", 1.0),
        "openai/gpt-3.5-turbo": ("2", 1.0),
    }
    start = rows_of(tmp_path / "out/banking77-start.jsonl.gz")
    assert [(prompt(row), row.truth, row.answers) for row in start] == [("t", "age_limit", {})]
    train = rows_of(tmp_path / "out/banking77-train.jsonl.gz")
    assert [(prompt(row), row.truth, row.answers) for row in train] == [
        ("How old?", "age_limit", {}),
        ("What?", "2", {}),
    ]


def test_llmdrift_gathers_the_versions_of_a_question(data: Path, tmp_path: Path) -> None:
    """One row a question; input tokens follow from the cost; the last yes or no is the verdict."""
    names = "model,trail,dataset,id,query,ref_answer,answer,latency,cost,max_tokens,timestamp,answer_token"
    when = "07/02/2023, 21:28:40"

    def recorded(model: str, reference: str, answer: str, cost: str, tokens: int) -> list[Any]:
        return [f"openaichat/{model}", 0, "prime", 5, "Is 7?", reference, answer, 1.5, cost, 100, when, tokens]

    save_csv(
        data / "llmdrift/PRIME_FULL_EVAL.csv.gz",
        names.split(","),
        recorded("gpt-4-0314", "yes", "No, 6 is not. So [Yes]", "0.00108", 3),
        recorded("gpt-4-0613", "yes", "[No]", "0.0069", 100),
        recorded("gpt-3.5-turbo-0301", "yes", "It depends", "0.000638", 289),
    )
    convert("llmdrift", tmp_path / "out")
    (row,) = rows_of(tmp_path / "out/llmdrift.jsonl.gz")
    assert (row.id, row.task, row.truth, row.time) == ("prime/5/0", "llmdrift-prime", "yes", 1688333320.0)
    march, june, small = row.answers.values()
    assert (march.input_tokens, march.loss, march.latency_s, march.finish_reason) == (30, 0.0, 1.5, "stop")
    assert (june.input_tokens, june.loss, june.finish_reason) == (30, 1.0, "length")
    assert (small.input_tokens, small.loss) == (30, 1.0)


@pytest.mark.parametrize("name", ["zeroeval", "mmlu-pro", "routellm", "banking77", "llmdrift"])
def test_a_set_that_is_not_there_is_skipped_with_the_reason(
    name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing set is no failure: it is said. A file that was named and is missing is one."""
    convert(name, tmp_path / "out")
    assert "skipped: " in capsys.readouterr().out
    assert main([name, str(tmp_path / "out"), "--file", str(tmp_path / "none.csv")]) == 1
    assert "none.csv: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("zeroeval", '{"task": 1}\n', "line 1: not a ZeroEval row"),
        ("zeroeval", "{\n", "line 1: not a ZeroEval row"),
        ("mmlu-pro", "qid,category\n", "output tokens are looked for"),
        ("routellm", "prompt\n", "has no column subject, mixtral, gpt4_1106"),
        ("routellm", "prompt,subject,mixtral,gpt4_1106\nQ,law,maybe,True\n", "line 2: expected True or False"),
        ("routellm", "prompt,subject,mixtral,gpt4_1106\nQ,law\n", "line 2: not as many fields"),
        ("banking77", "text\n", "has no column label"),
        ("llmdrift", "model\n", "has no column trail"),
    ],
)
def test_a_file_that_is_not_of_the_set_is_refused(
    name: str, text: str, said: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names file and line, and nothing is left half-written."""
    path = save(tmp_path / "input.txt", text)
    assert main([name, str(tmp_path / "out"), "--file", str(path)]) == 1
    error = capsys.readouterr().err
    assert str(path) in error
    assert said in error
    assert list((tmp_path / "out").iterdir()) == []


def test_the_command_says_what_it_does_without_data(tmp_path: Path) -> None:
    """Run as a user runs it: no data is a reason on screen and success; an OUT_DIR in the project is refused."""
    environment = {name: value for name, value in os.environ.items() if name != "UPSTACK_DATA"}
    command = [sys.executable, "-m", "benchmarks.converters", "all"]
    done = subprocess.run(
        [*command, str(tmp_path / "out")], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "skipped")
    assert main(["all", str(PROJECT / "benchmarks/out")]) == 2
    assert not (PROJECT / "benchmarks/out").exists()


def test_models_are_named_by_who_made_them() -> None:
    """One model has one name in all sets; an unknown maker is "other"."""
    assert route_name("mistralai/Mixtral-8x7B-Instruct-v0.1") == route_name("Mixtral-8x7B-Instruct-v0.1")
    assert route_name("somebody-1") == "other/somebody-1"


@needs_data
def test_zeroeval_sums_agree_with_the_source(tmp_path: Path) -> None:
    """Rows, tokens, losses and the cost in picodollars are those of a sum over the source itself."""
    convert("zeroeval", tmp_path)
    folder = Path(DATA or "") / "zeroeval"
    with gzip.open(folder / "dev.jsonl.gz", "rt") as file:
        source = [json.loads(text) for text in file]
    listed = json.loads((folder / "prices.json").read_text(), parse_float=Decimal)["prices"]
    prices = tomllib.loads((tmp_path / "zeroeval.prices.toml").read_text(), parse_float=Decimal)["prices"]
    converted = rows_of(tmp_path / "zeroeval.jsonl.gz")
    assert len(converted) == len(source) > 1000
    expected = [
        (route_name(name), prompt_text, answer["correct"], answer["in_tok"], answer["out_tok"])
        for prompt_text, models in ((row["prompt"], row["models"]) for row in source)
        for name, answer in models.items()
    ]
    found = [
        (name, prompt(row), 1 - (answer.loss or 0), answer.input_tokens, answer.output_tokens)
        for row in converted
        for name, answer in row.answers.items()
    ]
    assert found == expected
    cost = sum(a * Decimal(prices[name]["input"]) + b * Decimal(prices[name]["output"]) for name, _, _, a, b in found)
    straight = sum(
        answer["in_tok"] * Decimal(listed[name][0]) + answer["out_tok"] * Decimal(listed[name][1])
        for row in source
        for name, answer in row["models"].items()
    )
    assert cost * 10**6 == straight * 10**6 == int(straight * 10**6)


@needs_data
def test_the_other_sets_agree_with_what_is_published_of_them(tmp_path: Path) -> None:
    """Row counts, and accuracies as their authors or the notes of the set state them."""
    for name in ("mmlu-pro", "routellm", "banking77", "llmdrift"):
        convert(name, tmp_path)

    def accuracy(rows: list[TrafficRow], route: str) -> float:
        answers = [row.answers[route] for row in rows if route in row.answers]
        return 1 - sum(answer.loss or 0 for answer in answers) / len(answers)

    assert len(rows_of(tmp_path / "mmlu-pro.jsonl.gz")) == 2941
    assert len(rows_of(tmp_path / "routellm-mmlu.jsonl.gz")) == 5605
    gsm8k = rows_of(tmp_path / "routellm-gsm8k.jsonl.gz")
    assert len(gsm8k) == 1319
    assert accuracy(gsm8k, "openai/gpt-4-1106-preview") == pytest.approx(0.857, abs=0.001)
    banking = rows_of(tmp_path / "banking77.jsonl.gz")
    dev = [row for row in banking if row.id.startswith("dev")]
    assert len(dev) == 1001
    assert accuracy(dev, "openai/gpt-4") == pytest.approx(0.8112, abs=0.0001)
    start = rows_of(tmp_path / "banking77-start.jsonl.gz")
    train = rows_of(tmp_path / "banking77-train.jsonl.gz")
    assert (len(start), len(train)) == (231, 9002)
    assert {row.truth for row in banking} == {row.truth for row in start} == {row.truth for row in train}
    drift = rows_of(tmp_path / "llmdrift.jsonl.gz")
    assert len(drift) == 1000
    assert accuracy(drift, "openai/gpt-4-0314") == pytest.approx(0.840, abs=0.002)
    assert accuracy(drift, "openai/gpt-4-0613") == pytest.approx(0.511, abs=0.002)
