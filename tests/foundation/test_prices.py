from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import genai_prices
import pytest
from genai_prices.data import providers as price_lists
from hypothesis import given
from hypothesis import strategies as st

from upstack.core.config import PriceConfig
from upstack.core.errors import ConfigError
from upstack.core.types import Price, Provider, Rates, Usage
from upstack.foundation.prices import load_prices_toml, price_changes_at, price_for
from upstack.inference.cost import cost, read_usage

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
RELEASE = f"genai-prices {genai_prices.__version__}"


def provider(name: str, catalog: str | None = None) -> Provider:
    """A provider of that name, priced by the list `catalog`."""
    return Provider(name, "openai", "https://example.org", catalog=catalog)


def listed(name: str, model: str, now: datetime = NOW) -> Price | None:
    """The price of a model in the list of that name."""
    return price_for(provider(name), model, {}, (), now)


def flat(price: Price | None) -> Rates:
    """The rates of a price without tiers."""
    assert price is not None
    ((above, rates),) = price.tiers
    assert above == 0
    return rates


# --- The list --------------------------------------------------------------------------------------------------------


def test_a_plain_price_is_exact_and_named() -> None:
    """2.50 / 10 / 1.25 USD per million tokens; the version says which list, which release and which entry."""
    price = listed("openai", "gpt-4o-2024-08-06")
    assert price == Price(f"{RELEASE} openai/gpt-4o", ((0, Rates(2_500_000, 10_000_000, 1_250_000)),))


def test_tiers_begin_above_their_threshold() -> None:
    """Gemini 2.5 Pro costs more above 200,000 input tokens, for all tokens of the request."""
    price = price_for(provider("gemini", "google"), "gemini-2.5-pro", {}, (), NOW)
    assert price is not None
    (first, low), (above, high) = price.tiers
    assert (first, above) == (0, 200_000)
    assert (low.input, low.output) == (1_250_000, 10_000_000)
    assert (high.input, high.output) == (2_500_000, 15_000_000)
    assert cost(Usage(200_000, 0), price) == 200_000 * 1_250_000
    assert cost(Usage(200_001, 0), price) == 200_001 * 2_500_000


def test_a_price_may_depend_on_the_time_of_day() -> None:
    """DeepSeek's discount hours: the version tells the prices apart, and the next change is known."""
    day, night = listed("deepseek", "deepseek-chat"), listed("deepseek", "deepseek-chat", NOW.replace(hour=20))
    assert flat(day) == Rates(270_000, 1_100_000, 70_000)
    assert flat(night) == Rates(135_000, 550_000, 35_000)
    assert day is not None
    assert day.version == f"{RELEASE} deepseek/deepseek-chat 00:30-16:30Z"
    assert night is not None
    assert night.version == f"{RELEASE} deepseek/deepseek-chat outside 00:30-16:30Z"
    deepseek = provider("deepseek")
    assert price_changes_at(deepseek, "deepseek-chat", NOW) == datetime(2026, 11, 20, 16, 30, tzinfo=UTC)
    edge = datetime(2026, 11, 20, 16, 30, tzinfo=UTC)
    assert listed("deepseek", "deepseek-chat", edge) == night
    assert price_changes_at(deepseek, "deepseek-chat", edge) == datetime(2026, 11, 21, 0, 30, tzinfo=UTC)
    assert price_changes_at(deepseek, "deepseek-chat", NOW.replace(hour=20)) == datetime(
        2026, 11, 21, 0, 30, tzinfo=UTC
    )


def test_a_moment_in_another_zone_is_the_same_moment() -> None:
    """20:00 UTC is 04:00 in Beijing; a moment without a zone is UTC."""
    beijing = NOW.replace(hour=20).astimezone(timezone(timedelta(hours=8)))
    assert listed("deepseek", "deepseek-chat", beijing) == listed("deepseek", "deepseek-chat", NOW.replace(hour=20))
    assert listed("deepseek", "deepseek-chat", NOW.replace(tzinfo=None)) == listed("deepseek", "deepseek-chat")
    assert price_changes_at(provider("deepseek"), "deepseek-chat", beijing) == datetime(2026, 11, 21, 0, 30, tzinfo=UTC)


def test_a_price_may_begin_on_a_date() -> None:
    """o3 became cheaper on 10 June 2025, and that has been its price since."""
    before = datetime(2025, 6, 9, 23, 0, tzinfo=UTC)
    assert flat(listed("openai", "o3", before)).input == 10_000_000
    after = listed("openai", "o3")
    assert flat(after).input == 2_000_000
    assert after is not None
    assert after.version == f"{RELEASE} openai/o3 from 2025-06-10"
    assert price_changes_at(provider("openai"), "o3", before) == datetime(2025, 6, 10, tzinfo=UTC)
    assert price_changes_at(provider("openai"), "o3", NOW) is None
    assert price_changes_at(provider("openai"), "gpt-4o", NOW) is None


@given(st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 (made aware)
def test_a_price_holds_until_it_is_said_to_change(now: datetime) -> None:
    """Whatever the moment: until the next change, the compiled price stays the same."""
    for model in ("deepseek-chat", "deepseek-v4-flash", "deepseek-v4-pro"):
        change = price_changes_at(provider("deepseek"), model, now)
        assert change is not None
        assert now < change <= now + timedelta(days=1)
        last = change - timedelta(seconds=1)
        if last > now:
            assert listed("deepseek", model, last) == listed("deepseek", model, now)


def test_free_is_zero_and_empty_is_unknown() -> None:
    """OpenRouter's ":free" models cost nothing; an entry without a price says nothing."""
    free = listed("openrouter", "meta-llama/llama-3.3-70b-instruct:free")
    assert flat(free) == Rates(0, 0)
    assert cost(Usage(10**6, 10**6), free) == 0
    assert listed("cerebras", "qwen-3-coder-480b") is None


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("openai", "no-such-model"),
        ("openai", "claude-sonnet-4-5"),
        ("openai", ""),
        ("azure", "gpt-4o"),  # genai-prices would look among the models of OpenAI: a deployment may be called anything
        ("google", "claude-unheard-of"),
        ("no-such-list", "gpt-4o"),
        ("OPENAI", "gpt-4o"),
        ("ollama", "llama3"),
    ],
)
def test_what_the_providers_own_list_does_not_have_is_unknown(name: str, model: str) -> None:
    """Never a guess, never the price of a namesake elsewhere."""
    assert listed(name, model) is None
    assert price_changes_at(provider(name), model, NOW) is None


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("openai", "text-embedding-3-small"),  # no output: no price of an answer
        ("openai", "whisper-1"),  # by the minute
        ("openai", "gpt-audio"),  # audio in the output costs more than usage tells
        ("google", "gemini-2.5-flash-image"),  # so do images
        ("perplexity", "sonar-deep-research"),  # citations are billed and not reported
    ],
)
def test_a_price_that_usage_cannot_express_is_unknown(name: str, model: str) -> None:
    """Half a price would pass for the whole."""
    (price_list,) = [found for found in price_lists if found.id == name]
    assert price_list.find_model(model) is not None
    assert listed(name, model) is None


def test_a_price_says_where_audio_costs_something_else() -> None:
    """Gemini's audio costs three times its text; GPT-4o takes none here, and a configured price is for all tokens."""
    gemini, gpt = listed("google", "gemini-2.5-flash"), listed("openai", "gpt-4o")
    assert gemini is not None
    assert gemini.text_only
    assert cost(Usage(1_000, 10), gemini) == 1_000 * 300_000 + 10 * 2_500_000
    assert cost(Usage(1_000, 10, audio_tokens=1), gemini) is None
    assert gpt is not None
    assert not gpt.text_only
    configured = price_for(provider("google"), "gemini-2.5-flash", {"g": PriceConfig(1, 2)}, ("g",), NOW)
    assert configured is not None
    assert not configured.text_only


def test_a_flat_price_per_request_is_counted() -> None:
    """Perplexity's Sonar: 12 USD per thousand requests beside its tokens."""
    assert flat(listed("perplexity", "sonar")).request == 12_000_000_000


def test_a_provider_without_a_list_has_no_list_price() -> None:
    """A local server called "openai" is not OpenAI; `catalog = ""` says so, and a name there borrows a list."""
    assert price_for(provider("openai", ""), "gpt-4o", {}, (), NOW) is None
    assert price_for(provider("mine", "openai"), "gpt-4o", {}, (), NOW) == listed("openai", "gpt-4o")


# --- The configuration -----------------------------------------------------------------------------------------------


def test_the_configuration_wins_by_the_first_name_it_knows() -> None:
    """The route's own name stands before "provider/model", and both before the list."""
    overrides = {"cheap": PriceConfig(1, 2), "openai/gpt-4o": PriceConfig(3, 4, 0.5)}
    openai = provider("openai")
    assert flat(price_for(openai, "gpt-4o", overrides, ("cheap", "openai/gpt-4o"), NOW)) == Rates(1_000_000, 2_000_000)
    by_model = price_for(openai, "gpt-4o", overrides, ("other", "openai/gpt-4o"), NOW)
    assert flat(by_model) == Rates(3_000_000, 4_000_000, 500_000)
    assert price_for(openai, "gpt-4o", overrides, ("other",), NOW) == listed("openai", "gpt-4o")


def test_the_version_of_a_configured_price_follows_its_numbers() -> None:
    """The same numbers give the same version wherever they stand; any other number another one."""

    def version(*numbers: float | None) -> str:
        price = price_for(provider("x"), "m", {"m": PriceConfig(*numbers)}, ("m",), NOW)
        assert price is not None
        return price.version

    assert version(0.15, 0.6).startswith("config ")
    assert len(version(0.15, 0.6)) == len("config ") + 8
    assert version(0.15, 0.6) == version(0.15, 0.6, None)
    assert len({version(0.15, 0.6), version(0.15, 0.61), version(0.6, 0.15), version(0.15, 0.6, 0.1)}) == 4


@pytest.mark.parametrize(
    ("usd", "picodollars", "rounded"),
    [
        (0.075, 75_000, False),
        (0.1, 100_000, False),
        (2.675, 2_675_000, False),
        (0.0, 0, False),
        (0.000001, 1, False),
        (0.0000015, 2, True),
        (0.0000014, 1, True),
        (0.0000004, 0, True),
        (999_999.999999, 999_999_999_999, False),
    ],
)
def test_a_price_is_taken_as_it_was_written(usd: float, picodollars: int, rounded: bool) -> None:
    """No binary fraction creeps in; what is finer than a picodollar is rounded half up, and said."""
    price = price_for(provider("x"), "m", {"m": PriceConfig(usd, usd, usd)}, ("m",), NOW)
    assert flat(price) == Rates(picodollars, picodollars, picodollars)
    assert price is not None
    assert price.version.endswith("(rounded to 1e-12 USD)") == rounded


def test_a_file_of_prices_is_read(tmp_path: Path) -> None:
    """`[prices."provider/model"]` tables, as in upstack.toml."""
    path = tmp_path / "prices.toml"
    path.write_text(
        '[prices."openai/gpt-4o"]\ninput = 2.5\noutput = 10\n[prices."x/y"]\ninput=1\noutput=2\ncached_input=0.1'
    )
    assert load_prices_toml(path) == {"openai/gpt-4o": PriceConfig(2.5, 10.0), "x/y": PriceConfig(1.0, 2.0, 0.1)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[prices."x/y"]\ninput = 1\noutput = 2\ncached = 1', "unknown key `prices.x/y.cached`; did you mean"),
        ('[prices."x/y"]\ninput = 1', "output"),
        ('[prices."x/y"]\ninput = "1"\noutput = 2', "prices.x/y.input: expected float, got str"),
        ('[prices."x/y"]\ninput = -1\noutput = 2', "prices.x/y: USD per million tokens"),
        ('[prices."x/y"]\ninput = nan\noutput = 2', "prices.x/y: USD per million tokens"),
        ("[price.x]\ninput = 1\noutput = 2", "did you mean `prices`"),
        ("[server]\nport = 1", "unknown key `server`. Allowed here: prices$"),
        ("prices = 3", "prices: expected table, got int"),
        ("not toml", "not TOML"),
    ],
)
def test_a_file_of_prices_with_a_mistake_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """The message names the file and what is wrong in it."""
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_prices_toml(path)
    assert str(path) in caught.value.message


def test_a_file_of_prices_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The message says so."""
    with pytest.raises(ConfigError, match="no such file"):
        load_prices_toml(tmp_path / "prices.toml")


# --- The rules that providers publish --------------------------------------------------------------------------------

# Each provider's usage body in its own shape, and its bill by its own rule: (tokens, USD per million), added up here by
# hand. OpenAI: cached input at half price, reasoning billed as output (openai.com/api/pricing). Anthropic: cache reads
# at 0.1 and five-minute writes at 1.25 of the input price, counted beside the input (docs.anthropic.com, pricing).
# DeepSeek: hits and misses have prices of their own, standard hours (api-docs.deepseek.com, quick_start/pricing).
# Gemini: thinking is billed as output, cached input at a tenth (ai.google.dev/gemini-api/docs/pricing).
BILLS = {
    "openai": (
        ("openai", None, "gpt-4o-2024-08-06"),
        """{"prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 192, "audio_tokens": 0}}""",
        ((86, "2.50"), (1920, "1.25"), (300, "10")),
    ),
    "anthropic": (
        ("anthropic", None, "claude-sonnet-4-0"),
        """{"prompt_tokens": 100, "completion_tokens": 503, "total_tokens": 603,
            "cache_creation_input_tokens": 248, "cache_read_input_tokens": 1800}""",
        ((100, "3"), (248, "3.75"), (1800, "0.30"), (503, "15")),
    ),
    "deepseek": (
        ("deepseek", None, "deepseek-chat"),
        """{"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200,
            "prompt_cache_hit_tokens": 640, "prompt_cache_miss_tokens": 360,
            "prompt_tokens_details": {"cached_tokens": 640}}""",
        ((640, "0.07"), (360, "0.27"), (200, "1.10")),
    ),
    "gemini": (
        ("gemini", "google", "gemini-2.5-flash"),
        """{"prompt_tokens": 758, "completion_tokens": 102, "total_tokens": 1725,
            "prompt_tokens_details": {"cached_tokens": 256}}""",
        ((502, "0.30"), (256, "0.03"), (102 + 865, "2.50")),
    ),
}


@pytest.mark.parametrize(("model", "body", "bill"), BILLS.values(), ids=BILLS)
def test_a_usage_body_costs_what_its_provider_bills(
    model: tuple[str, str | None, str], body: str, bill: tuple[tuple[int, str], ...]
) -> None:
    """By the provider's published rule, to a tenth of a percent; here it is to the picodollar."""
    name, catalog, which = model
    price = price_for(provider(name, catalog), which, {}, (), NOW)
    assert cost(read_usage(body.encode()), price) == sum(tokens * int(Decimal(usd) * 10**6) for tokens, usd in bill)
