"""The compiled price list against the objects of genai-prices itself: every provider, every model, every clause."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import genai_prices
import pytest
from genai_prices import types as theirs
from genai_prices.data import providers

from tools import compile_prices
from upstack.core.types import Price, Provider, Usage
from upstack.foundation import prices
from upstack.foundation.price_list import Clause, find, matches
from upstack.inference.cost import cost

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
OTHERS = ("", "no-such-model", "gpt", "claude", "-20251211", "gpt-4o-20259999", "GPT-4o\n", "İ")
every_list = pytest.mark.parametrize("supplier", providers, ids=lambda supplier: supplier.id)


def texts(clause: theirs.MatchLogic) -> Iterator[tuple[str, str]]:
    """Every text of a clause with its kind."""
    for kind, value in vars(clause).items():
        if isinstance(value, list):
            for each in value:
                yield from texts(each)
        else:
            yield kind, value


def sample(pattern: str) -> str:
    """A name that a pattern of the list matches; they are texts with groups of digits and the odd choice."""
    plain = re.sub(r"^\^|\$$|\(\?!.*\)$", "", pattern).replace(r"\d{4}-\d{2}-\d{2}", "2026-01-02")
    plain = plain.replace(r"\d{8}", "20260102").replace(r"\d", "7").replace("(typesafe/)?", "typesafe/")
    found = re.sub(r"\\(.)", r"\1", plain.replace("(-20260102)?", "-20260102").replace("[-@]", "@"))
    assert re.search(pattern, found), f"no name was made for {pattern}"
    return found


def names(model: theirs.ModelInfo) -> Iterator[str]:
    """Names that a model's clauses match."""
    yield from (model.id, model.id.upper())
    for kind, text in texts(model.match):
        yield sample(text) if kind == "regex" else text


def names_beside(model: theirs.ModelInfo) -> Iterator[str]:
    """Names near to those: some match, most do not."""
    yield from (f"x{model.id}", f"{model.id}-20250231")
    for kind, text in texts(model.match):
        yield f"{sample(text) if kind == 'regex' else text}-20251211"
        yield text[:-1]


@every_list
def test_every_model_is_found_by_every_name(supplier: theirs.Provider) -> None:
    """Where genai-prices finds a model by a name, the same is found here; where it finds none, none."""
    listed = prices._models(supplier.id)
    assert [model.id for model in listed] == [model.id for model in supplier.models]
    asked = {name for model in supplier.models for name in names(model)} | {*OTHERS}
    # What is found nowhere is looked for in the whole list, so of a long one not every model's.
    sparse = supplier.models[:: 1 + len(supplier.models) // 100]
    asked.update(name for model in sparse for name in names_beside(model))
    for name in sorted(asked):
        expected, found = supplier.find_model(name), find(listed, name)
        assert (found and found.id) == (expected and expected.id), name


def test_names_of_every_kind_were_asked_for() -> None:
    """The comparison above has not quietly run dry: every kind of clause stands in the list, and some names fail."""
    kinds = {kind for supplier in providers for model in supplier.models for kind, _ in texts(model.match)}
    assert kinds == {"equals", "starts_with", "ends_with", "contains", "regex"}
    openai = next(supplier for supplier in providers if supplier.id == "openai")
    beside = [openai.find_model(name) is None for model in openai.models for name in names_beside(model)]
    assert beside.count(True) > 100
    assert beside.count(False) > 30


CLAUSES: list[theirs.MatchLogic] = [
    theirs.ClauseEquals("GPT-4o"),
    theirs.ClauseStartsWith("Gpt-4O"),
    theirs.ClauseEndsWith("MINI"),
    theirs.ClauseContains("4O-m"),
    theirs.ClauseRegex(r"^gpt-\d"),
    theirs.ClauseRegex(r"O"),  # never: names are looked for in lower case
    theirs.ClauseRegex(r"^(?!.*-[tT][tT][sS](?:$|-))"),
    theirs.ClauseOr([theirs.ClauseEquals("x"), theirs.ClauseEndsWith("4o")]),
    theirs.ClauseAnd([theirs.ClauseStartsWith("gpt"), theirs.ClauseOr([theirs.ClauseEndsWith("mini")])]),
    theirs.ClauseOr([]),
    theirs.ClauseAnd([]),
]


@pytest.mark.parametrize("clause", CLAUSES, ids=repr)
def test_a_clause_holds_as_it_does_there(clause: theirs.MatchLogic) -> None:
    """Each kind, nested ones included, for names in any case."""
    compiled = compile_prices._clause(clause)
    for name in ("gpt-4o", "gpt-4o-mini", "GPT-4O-Mini", "o1-mini", "my-gpt-4o", "gpt", "x", "gpt-4o-tts", "\n", ""):
        assert matches(compiled, name.lower()) == clause.is_match(name.lower()), name


def test_a_clause_that_says_nothing_holds_for_nothing() -> None:
    """Half a clause must not catch every model."""
    assert not matches(Clause(), "gpt-4o")


def test_a_date_without_dashes_is_read_as_one() -> None:
    """As some gateways write it; a day that there is not is no date."""
    listed = prices._models("openai")
    dashed, compact = find(listed, "gpt-4o-2024-08-06"), find(listed, "gpt-4o-20240806")
    assert dashed is not None
    assert dashed == compact
    assert find(listed, "gpt-4o-20240231") is None


# --- Prices ----------------------------------------------------------------------------------------------------------


def moments(model: theirs.ModelInfo) -> Iterator[datetime]:
    """Now, and both sides of every moment at which a price of the model begins or ends to hold."""
    yield NOW
    for entry in model.prices if isinstance(model.prices, list) else []:
        found = vars(entry.constraint) if entry.constraint is not None else {}
        for value in found.values():
            day, clock = (NOW.date(), value) if isinstance(value, time) else (value, time())
            edge = datetime.combine(day, clock, UTC)
            yield from (edge - SECOND, edge, edge + SECOND)


def plain(value: Decimal | theirs.TieredPrices) -> Decimal | tuple[tuple[int, Decimal], ...]:
    """A price of genai-prices as our file has it."""
    if isinstance(value, Decimal):
        return value
    return ((0, value.base), *((tier.start, tier.price) for tier in value.tiers))


@every_list
def test_every_price_is_the_one_in_force(supplier: theirs.Provider) -> None:
    """Under every key, whether we can express it or not, at every moment that matters."""
    for model, ours in zip(supplier.models, prices._models(supplier.id), strict=True):
        for moment in moments(model):
            expected = {key: plain(value) for key, value in vars(model.get_prices(moment)).items() if value is not None}
            assert prices._in_force(ours, moment)[0].usd == expected, (model.id, moment)


def test_many_prices_change() -> None:
    """The comparison above covers dates and hours."""
    models = [model for supplier in providers for model in supplier.models]
    assert sum(len(set(moments(model))) > 1 for model in models) > 200
    kinds = {type(entry.constraint) for model in models if isinstance(model.prices, list) for entry in model.prices}
    assert kinds == {type(None), theirs.StartDateConstraint, theirs.TimeOfDateConstraint}


USAGES = [
    Usage(1_000, 200),
    Usage(0, 0),
    Usage(123_457, 991, cached_input_tokens=23_001, cache_write_tokens=777, reasoning_tokens=400),
    Usage(400_001, 65_537, cached_input_tokens=399_999, reasoning_tokens=1),
]


def price_of(supplier: theirs.Provider, model: str, moment: datetime = NOW) -> Price | None:
    """Our price of a model in a list."""
    return prices.price_for(Provider("x", "openai", "https://example.org", catalog=supplier.id), model, {}, (), moment)


def independent_cost(supplier: theirs.Provider, model: theirs.ModelInfo, usage: Usage, moment: datetime) -> Decimal:
    """What genai-prices itself makes of it, in picodollars."""
    used = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
    )
    return model.calc_price(used, supplier, genai_request_timestamp=moment).total_price * 10**12


@every_list
def test_compiled_prices_cost_what_the_list_says_to_the_picodollar(supplier: theirs.Provider) -> None:
    """Every model that has a price, at several usages and moments, agrees with genai-prices' own calculation."""
    for asked in supplier.models:
        model = supplier.find_model(asked.id)
        for moment in [] if model is None else moments(model):
            price = price_of(supplier, asked.id, moment)
            for usage in [] if price is None else USAGES if moment == NOW else USAGES[2:3]:
                ours = cost(usage, price)
                assert model is not None
                assert price is not None
                assert ours is not None
                difference = abs(ours - independent_cost(supplier, model, usage, moment))
                # A price finer than a picodollar a token is off by at most half of one for each token.
                bound = Decimal("1.5") * (usage.input_tokens + usage.output_tokens) if "rounded" in price.version else 0
                assert difference <= bound, (model.id, usage, moment)


def test_the_list_is_compared_on_many_models() -> None:
    """The comparison above covers most models, so it has not quietly run dry."""
    known = [price_of(supplier, model.id) is not None for supplier in providers for model in supplier.models]
    assert known.count(True) > 0.8 * len(known)


# --- The compiler ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", [None, UTC, timezone(timedelta(hours=8)), timezone(timedelta(hours=-5, minutes=-30))])
def test_hours_are_utc_whatever_the_list_says(zone: timezone | None) -> None:
    """Hours that span midnight, there or here, hold as genai-prices has them."""
    for start, end in ((1, 4), (22, 3), (0, 0), (0, 23), (5, 5)):
        condition = theirs.TimeOfDateConstraint(time(start, 30, tzinfo=zone), time(end, 15, tzinfo=zone))
        entry = compile_prices._entry(theirs.ConditionalPrice(condition, prices=theirs.ModelPrice()))
        for quarter in range(96):
            moment = NOW + timedelta(minutes=15) * quarter
            assert prices._active(entry, moment) == condition.active(moment), (start, end, moment)


def test_what_the_file_has_no_word_for_is_not_compiled() -> None:
    """A new kind of clause or condition stops the compiler, where leaving it out would make a wrong price."""

    @dataclass
    class Unheard:
        sounds_like: str

        def active(self, moment: datetime) -> bool:
            return True

    with pytest.raises(TypeError):
        compile_prices._clause(Unheard("gpt"))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        compile_prices._entry(theirs.ConditionalPrice(Unheard("gpt"), prices=theirs.ModelPrice()))  # type: ignore[arg-type]


def test_a_stale_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` compares and writes nothing; without it the file is written."""
    file = tmp_path / "prices.json"
    monkeypatch.setattr(compile_prices, "ROOT", tmp_path)
    monkeypatch.setattr(compile_prices, "FILE", file)
    (tmp_path / "NOTICE").write_text((ROOT / "NOTICE").read_text())
    assert compile_prices.main(["--check"]) == 1
    assert not file.exists()
    assert compile_prices.main([]) == 0
    assert compile_prices.main(["--check"]) == 0
    file.write_text(file.read_text().replace(":2.5,", ":2.6,", 1))
    assert compile_prices.main(["--check"]) == 1
    assert "prices.json is not what genai-prices" in capsys.readouterr().out
    compile_prices.main([])
    (tmp_path / "NOTICE").write_text("")
    assert compile_prices.main(["--check"]) == 1
    assert "NOTICE lacks the licence" in capsys.readouterr().out


def test_the_file_is_read_only_when_a_price_is_asked_for() -> None:
    """An import reads nothing; a price needs neither genai-prices nor what it brings."""
    code = """
import sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
from datetime import datetime, UTC
from upstack.core.types import Provider
from upstack.foundation.prices import price_for
count = lambda: sum(path.endswith("prices.json") for path in opened)
assert count() == 0
for model in ("gpt-4o", "o3", "no-such-model"):
    price_for(Provider("openai", "openai", "https://x"), model, {}, (), datetime.now(UTC))
assert count() == 1
assert not {"genai_prices", "pydantic"} & sys.modules.keys()
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
