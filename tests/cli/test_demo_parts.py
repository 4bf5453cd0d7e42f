"""The demo's choices and its arithmetic: who is compared, which rows, and what counts as not adding up."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.cli.recording import PRICES, independent_sum, record, recorded_row
from upstack.application.data.generate import generate_traffic
from upstack.application.demo.loss import excess, loss_of
from upstack.application.demo.report import Report, percentile, settle
from upstack.application.demo.roles import Roles, choose_roles
from upstack.application.demo.scenario import Scenario, Wanted, prepare
from upstack.application.demo.sending import Sent
from upstack.application.gateway.explain import usd
from upstack.cli.reporting import as_json, print_report
from upstack.core.errors import ConfigError
from upstack.core.traffic import RecordedAnswer, TrafficRow
from upstack.core.types import Price, Rates, Receipt

A_LOSS = RecordedAnswer("", 1, 1, loss=0.0)
SIMULATED = '[prices."simulated/large"]\ninput = 1\noutput = 1\n[prices."simulated/small"]\ninput = 0.1\noutput = 1\n'


def _wanted(path: Path, **members: object) -> Wanted:
    given = {"prices": None, "reference": None, "candidate": None, "requests": None, "port": 0, "ledger": None}
    return Wanted(path, **{**given, **members})  # type: ignore[arg-type] # the defaults are of many types


def _price(rate_in: int, rate_out: int) -> Price:
    return Price("test", ((0, Rates(input=rate_in, output=rate_out)),))


def test_the_dearest_and_the_cheapest_are_compared_by_price_alone() -> None:
    """Three input tokens and one output token decide; a route without a price is not considered."""
    prices = {"a/x": _price(1, 30), "b/x": _price(10, 9), "c/x": _price(2, 1), "d/x": None}
    assert choose_roles(prices, None, None) == Roles(reference="b/x", candidate="c/x")
    assert choose_roles(prices, None, "b/x") == Roles(reference="a/x", candidate="b/x")
    assert choose_roles(prices, "d/x", None) == Roles(reference="d/x", candidate="c/x")


def test_equal_prices_are_told_apart_by_name() -> None:
    """The same traffic gives the same roles."""
    prices = {"b/x": _price(1, 1), "a/x": _price(1, 1)}
    assert choose_roles(prices, None, None) == Roles(reference="b/x", candidate="a/x")


@pytest.mark.parametrize(
    ("prices", "reference", "candidate", "words"),
    [
        (
            {"a/x": None, "b/x": None},
            None,
            None,
            "none of 2 routes has a known price; name --reference and --candidate",
        ),
        ({"a/x": _price(1, 1), "b/x": None}, None, None, "only a/x has a known price"),
        ({"a/x": _price(1, 1), "b/x": None}, None, "a/x", "name --reference"),
        ({"a/x": _price(1, 1)}, None, None, "one route only, a/x"),
        ({"a/dear": None, "b/x": None}, "a/deer", None, "did you mean a/dear"),
        ({"a/x": None, "b/x": None}, "a/x", "a/x", "both reference and candidate"),
    ],
)
def test_where_there_are_not_two_to_choose_it_is_said(
    prices: dict[str, Price | None], reference: str | None, candidate: str | None, words: str
) -> None:
    """With the flags that would help."""
    with pytest.raises(ConfigError) as raised:
        choose_roles(prices, reference, candidate)
    assert words in raised.value.message


def test_rows_are_taken_at_even_distances(tmp_path: Path) -> None:
    """Fewer requests than rows: exactly so many, from all over the file, and the rest is counted."""
    path = record(tmp_path, [recorded_row(number, f"prompt {number}") for number in range(20)])
    scenario = prepare(_wanted(path, requests=8))
    assert [row.id for row in scenario.rows] == ["r0", "r3", "r5", "r8", "r10", "r13", "r15", "r18"]
    assert (scenario.usable, scenario.skipped, scenario.whole) == (20, 0, False)
    assert prepare(_wanted(path, requests=100)).whole


def test_a_file_where_no_row_has_both_answers_is_refused(tmp_path: Path) -> None:
    """There would be nothing to compare."""
    path = record(tmp_path, [recorded_row(1, "x", ("a/dear",)), recorded_row(2, "y", ("b/cheap",))])
    with pytest.raises(ConfigError, match="no row has answers of both b/cheap and a/dear"):
        prepare(_wanted(path))


def test_loss_is_as_recorded_else_by_the_truth() -> None:
    """Blanks around an answer do not count; without truth or content nothing is known."""
    answers = {
        "a/recorded": RecordedAnswer("wrong", 1, 1, loss=0.25),
        "a/right": RecordedAnswer(" 42\n", 1, 1),
        "a/wrong": RecordedAnswer("41", 1, 1),
        "a/silent": RecordedAnswer("", 1, 1),
    }
    row = TrafficRow("r", "t", ({"role": "user", "content": "x"},), answers, truth=42)
    assert [loss_of(row, name) for name in answers] == [0.25, 0.0, 1.0, None]
    untold = TrafficRow("r", "t", ({"role": "user", "content": "x"},), answers)
    assert loss_of(untold, "a/right") is None


def test_the_interval_is_a_plain_one() -> None:
    """Mean and 1.96 standard errors of paired differences; the exact bound where nothing differs."""
    found = excess([0.0] * 90 + [1.0] * 10)
    assert found is not None
    assert (found.mean, found.rows, found.differ) == (0.1, 100, 10)
    assert found.high - found.mean == pytest.approx(1.959964 * (0.3 * (100 / 99) ** 0.5) / 10, rel=1e-6)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    none = excess([0.0] * 100)
    assert none is not None
    assert none.high == pytest.approx(0.0362, abs=1e-4), "the exact two-sided bound on 0 of 100"
    assert none.low == -none.high
    assert excess([]) is None
    single = excess([1.0])
    assert single is not None
    assert (single.low, single.high) == (-1.0, 1.0)
    few = excess([0.0] * 50 + [1.0])
    assert few is not None
    assert "rough" in few.method


def test_percentiles_are_values_that_were_seen() -> None:
    """Nearest rank."""
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([7.0], 0.99)) == (50.0, 99.0, 7.0)
    assert percentile([], 0.5) == 0.0


# --- What does not add up --------------------------------------------------------------------------------------------


def _receipt(index: int, scenario: Scenario, route: str, *, state: str = "answered", extra: int = 0) -> Receipt:
    cost = independent_sum([scenario.rows[index]], route) + extra
    return Receipt(
        id=f"id{index}",
        created_at=1.0,
        state=state,  # type: ignore[arg-type] # a literal, from a test
        model="task/demo",
        task="demo",
        strategy="fallback",
        plan="cheap",
        why="",
        route=route,
        stream=False,
        status=200,
        error=None,
        first_byte_s=None,
        duration_s=0.1,
        usage=None,
        cost_picodollars=cost,
        attempts=(),
        capture="full",
    )


def _sent(index: int, scenario: Scenario, route: str = "b/cheap", **members: str) -> Sent:
    content = scenario.rows[index].answers[route].content or ""
    return Sent(index, False, 0.01 * (index + 1), f"id{index}", **{"content": content, **members})


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    """Ten rows, the first two of the same prompt."""
    return prepare(_wanted(record(tmp_path, [recorded_row(n, f"prompt {max(n, 1)}") for n in range(10)])))


def _settled(scenario: Scenario, sent: list[Sent], receipts: list[Receipt]) -> Report:
    return settle(scenario, sent, {receipt.id: receipt for receipt in receipts})


def test_all_is_well_where_all_agrees(scenario: Scenario) -> None:
    """Answers to a repeated prompt may have changed places."""
    sent = [_sent(index, scenario) for index in range(10)]
    sent[0], sent[1] = _sent(0, scenario, content=sent[1].content), _sent(1, scenario, content=sent[0].content)
    report = _settled(scenario, sent, [_receipt(index, scenario, "b/cheap") for index in range(10)])
    assert (report.faults, report.checked, report.receipts) == ([], 10, 10)
    assert report.saved == independent_sum(scenario.rows, "a/dear") - independent_sum(scenario.rows, "b/cheap")


def test_a_picodollar_too_much_is_a_fault(scenario: Scenario) -> None:
    """The sums must be equal, not close."""
    receipts = [_receipt(index, scenario, "b/cheap", extra=index == 7) for index in range(10)]
    report = _settled(scenario, [_sent(index, scenario) for index in range(10)], receipts)
    assert len(report.faults) == 1
    assert "picodollars" in report.faults[0]


def test_a_missing_receipt_is_a_fault(scenario: Scenario) -> None:
    """So is one that says the request was not answered."""
    receipts = [_receipt(index, scenario, "b/cheap") for index in range(8)]
    receipts.append(_receipt(8, scenario, "b/cheap", state="truncated"))
    report = _settled(scenario, [_sent(index, scenario) for index in range(10)], receipts)
    assert report.faults == ["10 requests were answered, but the ledger has 8 receipts of answers"]


def test_an_answer_that_was_changed_is_a_fault(scenario: Scenario) -> None:
    """What the client got is what the model said."""
    sent = [_sent(index, scenario, **({"content": "maybe"} if index == 4 else {})) for index in range(10)]
    report = _settled(scenario, sent, [_receipt(index, scenario, "b/cheap") for index in range(10)])
    assert report.faults == ["1 answers came out other than the models gave them"]


def test_a_fail_over_is_counted_where_it_went(scenario: Scenario) -> None:
    """The reference answered two rows: its price, no excess there, and the repeated prompt is left out of the check."""
    routes = ["a/dear" if index in {1, 5} else "b/cheap" for index in range(10)]
    sent = [_sent(index, scenario, route) for index, route in enumerate(routes)]
    report = _settled(scenario, sent, [_receipt(index, scenario, route) for index, route in enumerate(routes)])
    assert (report.faults, report.checked) == ([], 8)
    assert report.by_route == {"b/cheap": 8, "a/dear": 2}
    assert report.excess is not None
    assert report.excess.mean == pytest.approx(0.4), "rows 0, 3, 6 and 9 are wrong, and none of them failed over"


def test_an_unknown_price_is_unknown_and_not_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named routes without a price are served; what they cost is unknown, in the table and in JSON."""
    path = record(tmp_path, [recorded_row(number, f"prompt {number}") for number in range(5)], prices="")
    scenario = prepare(_wanted(path, reference="a/dear", candidate="b/cheap"))
    receipts = [replace(_receipt(index, scenario, "b/cheap"), cost_picodollars=None) for index in range(5)]
    report = _settled(scenario, [_sent(index, scenario) for index in range(5)], receipts)
    assert (report.served, report.always_reference, report.saved, report.checked) == (None, None, None, 0)
    print_report(scenario, report, 1.0, None, None)
    printed = capsys.readouterr().out
    assert "price unknown" in printed
    assert "unknown, as a price is" in printed
    assert "$" not in printed
    assert "picodollar" not in printed
    assert as_json(scenario, report, 1.0, None)["saved"] == {
        "picodollars": None,
        "usd": None,
        "share": None,
    }


def test_a_dearer_candidate_is_shown_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was saved may be negative."""
    path = record(tmp_path, [recorded_row(number, f"prompt {number}") for number in range(5)])
    scenario = prepare(_wanted(path, reference="b/cheap", candidate="a/dear"))
    sent = [_sent(index, scenario, "a/dear") for index in range(5)]
    report = _settled(scenario, sent, [_receipt(index, scenario, "a/dear") for index in range(5)])
    more = independent_sum(scenario.rows, "a/dear") - independent_sum(scenario.rows, "b/cheap")
    assert report.saved == -more
    print_report(scenario, report, 1.0, None, None)
    printed = capsys.readouterr().out
    assert re.search(rf"Cost more +│ \${re.escape(usd(more))} \([0-9,.]+ % more\)", printed)
    assert "Saved" not in printed
    assert as_json(scenario, report, 1.0, None)["saved"]["usd"] == f"-{usd(more)}"


def test_sums_stand_with_their_points_below_each_other(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever stands before and after the point."""
    report = _settled(scenario, [_sent(0, scenario)], [_receipt(0, scenario, "b/cheap")])
    print_report(scenario, replace(report, served=5 * 10**11, always_reference=1234 * 10**12 + 1), 1.0, None, None)
    lines = capsys.readouterr().out.splitlines()
    sums = [line for line in lines if re.search(r"Cost as served|Always the reference|Saved", line)]
    assert len(sums) == 3
    assert len({line.index(".") for line in sums}) == 1, sums


def test_what_is_replayed_is_called_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Answers of a file are recorded, not "real"; empty ones are counted; traffic of our own making is SIMULATED."""
    empty = [replace(recorded_row(n, f"p{n}"), answers={"a/dear": A_LOSS, "b/cheap": A_LOSS}) for n in range(2)]
    for rows, words, absent in (
        ([recorded_row(1, "x"), *empty], "4 of 6 answers have no content.", "SIMULATED"),
        (list(generate_traffic(3)), "SIMULATED traffic and models", "no content"),
    ):
        path = record(tmp_path, rows, prices=PRICES + SIMULATED)
        found = prepare(_wanted(path))
        sent = [_sent(index, found, found.roles.candidate) for index in range(3)]
        print_report(found, _settled(found, sent, []), 1.0, None, None)
        printed = capsys.readouterr().out
        assert "Answers recorded in some.jsonl.gz, replayed; no provider is called." in printed
        assert words in printed
        assert absent not in printed
        assert re.search(r"Prices +│ some\.prices\.toml ", printed)


def test_prices_of_the_list_are_named_with_its_version(tmp_path: Path) -> None:
    """Where no file has the price of a route."""
    row = recorded_row(1, "x", ())
    answers = {name: RecordedAnswer("yes", 1, 1) for name in ("openai/gpt-4o", "openai/gpt-4o-mini", "b/cheap")}
    path = record(tmp_path, [replace(row, answers=answers)])
    listed = f"genai-prices {importlib.metadata.version('genai-prices')}"
    assert prepare(_wanted(path, candidate="openai/gpt-4o-mini")).price_source == listed
    assert prepare(_wanted(path, candidate="b/cheap")).price_source == f"{listed} and some.prices.toml"


def test_a_failed_request_is_counted_and_its_reason_kept(scenario: Scenario) -> None:
    """The costs compared are those of the rows that were answered."""
    sent = [_sent(index, scenario, **({"error": "no route left"} if index == 9 else {})) for index in range(10)]
    report = _settled(scenario, sent, [_receipt(index, scenario, "b/cheap") for index in range(9)])
    assert (report.answered, report.failed, report.first_error, report.faults) == (9, 1, "no route left", [])
    assert report.always_reference == independent_sum(scenario.rows[:9], "a/dear")
