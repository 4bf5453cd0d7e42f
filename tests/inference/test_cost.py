from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple, replace

from upstack.core.types import Price, Rates, Usage
from upstack.inference.cost import cost, read_usage

# Bodies in the shape the named document gives; the figures are the document's where it gives any.
PUBLISHED = {
    "OpenAI: platform.openai.com/docs/guides/prompt-caching": (
        """{"prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920},
            "completion_tokens_details": {"reasoning_tokens": 0, "accepted_prediction_tokens": 0,
                                          "rejected_prediction_tokens": 0}}""",
        Usage(2006, 300, cached_input_tokens=1920),
    ),
    "OpenAI, reasoning: discuss.ai.google.dev/t/98760 (its second body)": (
        """{"prompt_tokens": 1486, "completion_tokens": 651, "total_tokens": 2137,
            "prompt_tokens_details": {"cached_tokens": 1408, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 512, "audio_tokens": 0,
                                          "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}}""",
        Usage(1486, 651, cached_input_tokens=1408, reasoning_tokens=512),
    ),
    "Gemini leaves its thinking out and names it nowhere: discuss.ai.google.dev/t/98760": (
        '{"completion_tokens": 102, "prompt_tokens": 758, "total_tokens": 1725}',
        Usage(758, 967, reasoning_tokens=865),
    ),
    "Gemini, all of it spent on thinking": (
        '{"prompt_tokens": 21, "total_tokens": 81}',
        Usage(21, 60, reasoning_tokens=60),
    ),
    "xAI, reasoning beside the completion: docs.x.ai/docs/key-information/consumption-and-rate-limits": (
        """{"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135,
            "prompt_tokens_details": {"text_tokens": 32, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 6},
            "completion_tokens_details": {"reasoning_tokens": 94, "audio_tokens": 0,
                                          "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
            "num_sources_used": 0}""",
        Usage(32, 103, cached_input_tokens=6, reasoning_tokens=94),
    ),
    "xAI, as billed (232,856,000 ticks): github.com/Wei-Shaw/sub2api/issues/5771": (
        """{"prompt_tokens": 10120, "completion_tokens": 1499, "total_tokens": 14428,
            "prompt_tokens_details": {"cached_tokens": 128},
            "completion_tokens_details": {"reasoning_tokens": 2809}}""",
        Usage(10120, 4308, cached_input_tokens=128, reasoning_tokens=2809),
    ),
    "xAI: docs.x.ai/developers/advanced-api-usage/prompt-caching/usage-and-pricing": (
        """{"prompt_tokens": 125, "completion_tokens": 48, "total_tokens": 173,
            "prompt_tokens_details": {"text_tokens": 125, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 98},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0}}""",
        Usage(125, 48, cached_input_tokens=98),
    ),
    "DeepSeek: api-docs.deepseek.com/guides/kv_cache": (
        """{"prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 27, "prompt_cache_hit_tokens": 12,
            "prompt_cache_miss_tokens": 8, "completion_tokens_details": {"reasoning_tokens": 5}}""",
        Usage(20, 7, cached_input_tokens=12, reasoning_tokens=5),
    ),
    "DeepSeek, with OpenAI's name beside its own": (
        """{"prompt_tokens": 496, "completion_tokens": 1783, "total_tokens": 2279, "prompt_tokens_details":
            {"cached_tokens": 64}, "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 432}""",
        Usage(496, 1783, cached_input_tokens=64),
    ),
    "DeepSeek's two parts without their sum": (
        '{"completion_tokens": 50, "prompt_cache_hit_tokens": 6500, "prompt_cache_miss_tokens": 100}',
        Usage(6600, 50, cached_input_tokens=6500),
    ),
    "Anthropic's compatible endpoint leaves the details empty: platform.claude.com, OpenAI SDK compatibility": (
        """{"prompt_tokens": 21, "completion_tokens": 305, "total_tokens": 326,
            "prompt_tokens_details": null, "completion_tokens_details": null}""",
        Usage(21, 305),
    ),
    "Anthropic's names within the prompt, as LiteLLM counts: OpenAI's name beside them says so": (
        """{"prompt_tokens": 2100, "completion_tokens": 34, "total_tokens": 2134,
            "prompt_tokens_details": {"cached_tokens": 2047},
            "cache_read_input_tokens": 2047, "cache_creation_input_tokens": 40}""",
        Usage(2100, 34, cached_input_tokens=2047, cache_write_tokens=40),
    ),
    "Anthropic's names beside the prompt, which the total says": (
        """{"prompt_tokens": 5000, "completion_tokens": 10, "total_tokens": 7010,
            "cache_read_input_tokens": 2000, "cache_creation_input_tokens": 0}""",
        Usage(7000, 10, cached_input_tokens=2000),
    ),
    "Anthropic's names beside the prompt, as Anthropic counts: claude-cookbooks/issues/155": (
        """{"prompt_tokens": 4, "completion_tokens": 297, "total_tokens": 301,
            "cache_read_input_tokens": 187354, "cache_creation_input_tokens": 36}""",
        Usage(187_394, 297, cached_input_tokens=187_354, cache_write_tokens=36),
    ),
    "Anthropic's names beside the prompt, neither larger than it alone": (
        """{"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101,
            "cache_read_input_tokens": 60, "cache_creation_input_tokens": 60}""",
        Usage(220, 1, cached_input_tokens=60, cache_write_tokens=60),
    ),
    "OpenRouter: openrouter.ai/docs/use-cases/usage-accounting": (
        """{"completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 0}, "cost": 0.95,
            "cost_details": {"upstream_inference_cost": 19}, "prompt_tokens": 194,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 100, "audio_tokens": 0},
            "total_tokens": 196}""",
        Usage(194, 2, cache_write_tokens=100),
    ),
    "DashScope: alibabacloud.com/help/en/model-studio/context-cache": (
        """{"prompt_tokens": 1500, "completion_tokens": 10, "total_tokens": 1510,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_creation_input_tokens": 1400}}""",
        Usage(1500, 10, cache_write_tokens=1400),
    ),
    "Moonshot: platform.moonshot.ai/docs/api/chat": (
        '{"prompt_tokens": 19, "completion_tokens": 21, "total_tokens": 40, "cached_tokens": 10}',
        Usage(19, 21, cached_input_tokens=10),
    ),
    "OpenAI, with audio in and out: platform.openai.com/docs/api-reference/chat/object": (
        """{"prompt_tokens": 120, "completion_tokens": 60, "total_tokens": 180,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 100},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 40}}""",
        Usage(120, 60, audio_tokens=140),
    ),
    "a local server": ('{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}', Usage(5, 7)),
    "no total, and reasoning that cannot be a part": (
        '{"prompt_tokens":5,"completion_tokens":7,"completion_tokens_details":{"reasoning_tokens":9}}',
        Usage(5, 16, reasoning_tokens=9),
    ),
    "a total that is too small says nothing": (
        '{"prompt_tokens":5,"completion_tokens":7,"total_tokens":3}',
        Usage(5, 7),
    ),
    "nothing used": ('{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}', Usage(0, 0)),
}


@pytest.mark.parametrize(("body", "usage"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_usage_is_read(body: str, usage: Usage) -> None:
    """Each provider's way of counting becomes the same numbers."""
    assert read_usage(body.encode()) == usage
    assert read_usage(msgspec.Raw(body.encode())) == usage


NONSENSE = {
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "a number": b"7",
    "no counts": b"{}",
    "input alone": b'{"prompt_tokens": 5}',
    "output alone": b'{"completion_tokens": 5}',
    "a total below the input, and no output": b'{"prompt_tokens": 10, "total_tokens": 5}',
    # Databricks counts what was cached within the prompt (databricks-ai-bridge/issues/446), Anthropic beside it.
    "two readings": b'{"prompt_tokens": 5000, "completion_tokens": 9, "cache_read_input_tokens": 99}',
    "cut": b'{"prompt_tokens": 5, "completion_tok',
    "negative": b'{"prompt_tokens": -1, "completion_tokens": 5}',
    "negative part": b'{"prompt_tokens": 1, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": -1}}',
    "text": b'{"prompt_tokens": "1", "completion_tokens": 5}',
    "a truth value": b'{"prompt_tokens": true, "completion_tokens": 5}',
    "a fraction": b'{"prompt_tokens": 1.5, "completion_tokens": 5}',
    "beyond any context": b'{"prompt_tokens": 2147483648, "completion_tokens": 5}',
    "beyond 64 bits": b'{"prompt_tokens": 99999999999999999999999, "completion_tokens": 5}',
    "details that are none": b'{"prompt_tokens": 1, "completion_tokens": 5, "prompt_tokens_details": 3}',
    "nested without end": b'{"prompt_tokens": 1, "completion_tokens": 5, "x": ' + b"[" * 200_000,
    "bad UTF-8": b'{"prompt_tokens": "\xff"}',
}


@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE)
def test_usage_that_makes_no_sense_is_unknown(body: bytes) -> None:
    """Unknown, never 0, and never an error: providers are not trusted."""
    assert read_usage(body) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
COUNTS = st.integers(0, 300_000)
DETAILS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("cached_tokens", "cache_write_tokens", "reasoning_tokens"), COUNTS | JSON)
)
BODIES = st.fixed_dictionaries(
    {"prompt_tokens": COUNTS | JSON},
    optional={
        **dict.fromkeys(("completion_tokens", "total_tokens", "reasoning_tokens"), COUNTS | JSON),
        **dict.fromkeys(("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens"), COUNTS),
        **dict.fromkeys(("prompt_tokens_details", "completion_tokens_details"), DETAILS | JSON),
    },
)


@given(BODIES | JSON)
def test_whatever_a_provider_says_is_read_or_unknown(body: Any) -> None:
    """No body raises; what is read has no negative count and all of the output that was named."""
    usage = read_usage(json.dumps(body).encode())
    if usage is not None:
        assert min(astuple(usage)) >= 0
        assert usage.output_tokens >= (body.get("completion_tokens") or 0)
        assert usage.input_tokens >= body["prompt_tokens"]


@given(st.binary(max_size=60))
def test_bytes_that_are_no_usage_are_unknown(body: bytes) -> None:
    """Any bytes at all are taken without an error."""
    assert read_usage(body) is None


# --- Cost ------------------------------------------------------------------------------------------------------------

FULL = Rates(input=3_000_000, output=15_000_000, cached_input=300_000, cache_write=3_750_000, reasoning=20_000_000)


def price(*tiers: tuple[int, Rates]) -> Price:
    """A price of these tiers."""
    return Price("test", tiers)


def test_each_kind_of_token_is_charged_once_at_its_rate() -> None:
    """Cached and written tokens are parts of the input, reasoning tokens of the output."""
    usage = Usage(1_000, 100, cached_input_tokens=600, cache_write_tokens=300, reasoning_tokens=40)
    expected = 100 * 3_000_000 + 600 * 300_000 + 300 * 3_750_000 + 60 * 15_000_000 + 40 * 20_000_000
    assert cost(usage, price((0, FULL))) == expected


def test_a_kind_without_a_rate_costs_what_its_whole_costs() -> None:
    """No price for cached tokens is no discount; reasoning costs what output costs."""
    usage = Usage(1_000, 100, cached_input_tokens=600, cache_write_tokens=300, reasoning_tokens=40)
    assert cost(usage, price((0, Rates(2, 10)))) == 1_000 * 2 + 100 * 10


def test_an_xai_answer_costs_what_xai_billed() -> None:
    """232,856,000 ticks of 1e-10 USD, as its own usage said: github.com/Wei-Shaw/sub2api/issues/5771."""
    grok = price((0, Rates(1_250_000, 2_500_000, 200_000)))
    body, _ = PUBLISHED["xAI, as billed (232,856,000 ticks): github.com/Wei-Shaw/sub2api/issues/5771"]
    assert cost(read_usage(body.encode()), grok) == 232_856_000 * 100


def test_what_is_unknown_has_no_cost() -> None:
    """Neither usage nor price is ever taken to be 0."""
    assert cost(None, price((0, FULL))) is None
    assert cost(Usage(1, 1), None) is None
    assert cost(None, None) is None


def test_audio_has_a_cost_only_where_it_costs_what_text_does() -> None:
    """Where the list has another rate for it, the cost is unknown: it would be understated several times over."""
    spoken, written = Usage(1_000, 100, audio_tokens=900), Usage(1_000, 100)
    apart = Price("test", ((0, FULL),), text_only=True)
    assert cost(spoken, apart) is None
    assert cost(written, apart) == cost(written, price((0, FULL)))
    assert cost(spoken, price((0, FULL))) == cost(written, price((0, FULL)))


def test_a_cost_that_no_ledger_can_hold_is_unknown() -> None:
    """Nine million USD are the largest that 64 bits hold."""
    assert cost(Usage(1, 0), price((0, Rates(2**63 - 1, 0)))) == 2**63 - 1
    assert cost(Usage(1, 1), price((0, Rates(2**63 - 1, 1)))) is None


def test_a_flat_price_is_added_once() -> None:
    """Also where no token was used."""
    assert cost(Usage(0, 0), price((0, Rates(1, 1, request=500)))) == 500
    assert cost(Usage(2, 3), price((0, Rates(1, 1, request=500)))) == 505


@pytest.mark.parametrize(("input_tokens", "rate"), [(0, 1), (200, 1), (201, 2), (500, 2), (501, 3), (10**6, 3)])
def test_the_tier_is_picked_by_the_input_and_holds_for_all(input_tokens: int, rate: int) -> None:
    """A tier begins above its threshold, cached tokens count towards it, and the output follows."""
    tiers = price((0, Rates(1, 10)), (200, Rates(2, 20)), (500, Rates(3, 30)))
    usage = Usage(input_tokens, 5, cached_input_tokens=input_tokens)
    assert cost(usage, tiers) == input_tokens * rate + 5 * rate * 10


@pytest.mark.parametrize(
    ("usage", "same_as"),
    [
        (Usage(-5, -5), Usage(0, 0)),
        (Usage(10, 10, cached_input_tokens=99), Usage(10, 10, cached_input_tokens=10)),
        (Usage(10, 10, cached_input_tokens=-1), Usage(10, 10)),
        (Usage(10, 10, cache_write_tokens=99), Usage(10, 10, cache_write_tokens=10)),
        (
            Usage(10, 10, cached_input_tokens=8, cache_write_tokens=8),
            Usage(10, 10, cached_input_tokens=8, cache_write_tokens=2),
        ),
        (Usage(10, 10, reasoning_tokens=99), Usage(10, 10, reasoning_tokens=10)),
        (Usage(10, 10, reasoning_tokens=-1), Usage(10, 10)),
    ],
)
def test_parts_are_never_more_than_their_whole(usage: Usage, same_as: Usage) -> None:
    """Inconsistent usage is clamped, so that no token is charged twice."""
    assert cost(usage, price((0, FULL))) == cost(same_as, price((0, FULL)))


RATE = st.integers(0, 10**9)
RATES = st.builds(Rates, RATE, RATE, st.none() | RATE, st.none() | RATE, st.none() | RATE, request=RATE)
PRICES = st.builds(lambda first, more: price((0, first), *sorted(more.items())), RATES, st.dictionaries(COUNTS, RATES))
ANY = st.builds(Usage, *[st.integers(-5, 300_000)] * 5)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Usage whose parts fit their wholes."""
    fresh, cached, written, visible, reasoning = (draw(COUNTS) for _ in range(5))
    return Usage(fresh + cached + written, visible + reasoning, cached, written, reasoning)


@given(ANY, PRICES)
def test_a_cost_is_never_negative(usage: Usage, any_price: Price) -> None:
    """Whatever the usage and the rates."""
    found = cost(usage, any_price)
    assert isinstance(found, int)
    assert found >= 0


@given(usages(), usages(), RATES)
def test_costs_of_one_tier_add_up(one: Usage, other: Usage, rates: Rates) -> None:
    """Two requests cost what one with the tokens of both costs, but for the price of a request."""
    both = Usage(*(a + b for a, b in zip(astuple(one), astuple(other), strict=True)))
    rate = price((0, rates))
    apart = (cost(one, rate), cost(other, rate))
    assert None not in apart
    assert cost(both, rate) == sum(part for part in apart if part is not None) - rates.request


@given(usages(), COUNTS, COUNTS, RATES)
def test_more_tokens_never_cost_less(usage: Usage, fresh: int, visible: int, rates: Rates) -> None:
    """Within a tier, a further token of input or output adds exactly its rate."""
    more = replace(usage, input_tokens=usage.input_tokens + fresh, output_tokens=usage.output_tokens + visible)
    rate = price((0, rates))
    before, after = cost(usage, rate), cost(more, rate)
    assert before is not None
    assert after == before + fresh * rates.input + visible * rates.output
