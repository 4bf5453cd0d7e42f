"""What an answer used and what that costs. Pure: bytes and values in, values out; no clock, file or socket."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import msgspec

from upstack.core.types import Ceiling, Picodollars, Price, Request, Route, Usage

_MOST_TOKENS = 2**31 - 1  # a count beyond this is nonsense: no context holds it
MOST_COST = 2**63 - 1  # picodollars, nine million USD: what a ledger's integer holds
_HOUR = 3_600_000_000  # microseconds
_Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST_TOKENS)] | None


class _InputDetails(msgspec.Struct, gc=False):
    audio_tokens: _Count = None
    cached_tokens: _Count = None  # OpenAI and most others
    cache_write_tokens: _Count = None  # OpenAI, OpenRouter: openrouter.ai/docs/use-cases/usage-accounting
    cache_creation_input_tokens: _Count = None  # DashScope: alibabacloud.com/help/en/model-studio/context-cache


class _OutputDetails(msgspec.Struct, gc=False):
    audio_tokens: _Count = None
    reasoning_tokens: _Count = None


class _Body(msgspec.Struct, gc=False):
    """The members of a `usage` object that mean something here; all others are skipped."""

    prompt_tokens: _Count = None
    completion_tokens: _Count = None
    total_tokens: _Count = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    prompt_cache_hit_tokens: _Count = None  # DeepSeek: hit + miss = prompt; api-docs.deepseek.com/guides/kv_cache
    prompt_cache_miss_tokens: _Count = None
    cached_tokens: _Count = None  # Moonshot: platform.moonshot.ai/docs/api/chat
    cache_read_input_tokens: _Count = None  # Anthropic's own names, which some compatible endpoints keep
    cache_creation_input_tokens: _Count = None
    reasoning_tokens: _Count = None  # Databricks


_decode = msgspec.json.Decoder(_Body).decode


def read_usage(usage_json: bytes | msgspec.Raw) -> Usage | None:
    """Read the `usage` object of an OpenAI-compatible answer.

    None where it is missing, malformed, negative, absurd or can be read in two ways: unknown, never 0. Reasoning tokens
    are part of the output in the result, whether or not the provider counted them into `completion_tokens`.
    """
    try:
        body = _decode(usage_json)
    except (msgspec.DecodeError, RecursionError):
        return None
    prompt = body.prompt_tokens
    if prompt is None:
        if body.prompt_cache_hit_tokens is None or body.prompt_cache_miss_tokens is None:
            return None
        prompt = body.prompt_cache_hit_tokens + body.prompt_cache_miss_tokens
    completion, total = body.completion_tokens, body.total_tokens
    if completion is None and (total is None or total < prompt):
        return None

    cached = written = 0
    inputs = body.prompt_tokens_details
    if inputs is not None:
        cached = inputs.cached_tokens or 0
        written = inputs.cache_write_tokens or inputs.cache_creation_input_tokens or 0
    cached = cached or body.prompt_cache_hit_tokens or body.cached_tokens or 0
    beside = 0
    if body.cache_read_input_tokens or body.cache_creation_input_tokens:
        cached = cached or body.cache_read_input_tokens or 0
        written = written or body.cache_creation_input_tokens or 0
        # Anthropic counts them beside the prompt, Databricks within: databricks-ai-bridge/issues/446. More than all of
        # it cannot be within, and a total may tell. Beside OpenAI's name (LiteLLM) they are within, as that is.
        counted = total is not None and completion is not None and total == prompt + completion + cached + written
        if counted and total is not None:
            total -= cached + written
        if counted or cached + written > prompt:
            beside = cached + written
        elif inputs is None or inputs.cached_tokens is None:
            return None

    outputs = body.completion_tokens_details
    reasoning = ((outputs.reasoning_tokens if outputs is not None else None) or body.reasoning_tokens) or 0
    output, reasoning = _output(prompt, completion or 0, reasoning, total)
    audio = ((inputs.audio_tokens or 0) if inputs is not None else 0) + (
        (outputs.audio_tokens or 0) if outputs is not None else 0
    )
    return Usage(prompt + beside, output, cached, written, reasoning, audio)


def _output(prompt: int, completion: int, reasoning: int, total: int | None) -> tuple[int, int]:
    """Output and reasoning tokens, where a provider may have left the second out of the first.

    xAI says so ("counted separately from completion_tokens, but in total_tokens", docs.x.ai/docs/key-information/
    consumption-and-rate-limits); Gemini's endpoint does it without naming them (completion 102, prompt 758, total 1725:
    discuss.ai.google.dev/t/98760). Both show in a total that is larger than its parts.
    """
    if total is not None:
        rest = total - prompt - completion
        if rest > 0:
            return completion + rest, max(reasoning, rest)
    elif reasoning > completion:  # no total to tell by, and a part cannot be larger than the whole
        return completion + reasoning, reasoning
    return completion, reasoning


def cost(usage: Usage | None, price: Price | None, seconds: float = 0.0) -> Picodollars | None:
    """Price what was used, in picodollars: an exact integer, None where usage or price is unknown or it is absurd.

    Where the price is by the hour it is that of `seconds`, rounded to the nearest, whatever the usage.

    The tier is picked by the input tokens, cached ones included, and holds for all tokens. Inconsistent usage is
    clamped: a negative count is 0, cached tokens are at most the input, cache writes at most the input that was not
    cached, reasoning at most the output. So a cost is never negative and never counts a token twice.
    """
    if price is not None and price.per_hour:
        return (price.per_hour * round(seconds * 1_000_000) + _HOUR // 2) // _HOUR
    if usage is None or price is None or (usage.audio_tokens and price.text_only):
        return None
    cached, written, reasoning = usage.cached_input_tokens, usage.cache_write_tokens, usage.reasoning_tokens
    if cached < 0 or written < 0 or cached + written > usage.input_tokens or not 0 <= reasoning <= usage.output_tokens:
        return cost(_consistent(usage), price)
    rates = price.tiers[0][1]
    if len(price.tiers) > 1:
        for above, tier in price.tiers:
            if usage.input_tokens > above:
                rates = tier
    total = rates.request + usage.input_tokens * rates.input + usage.output_tokens * rates.output
    # The parts that have a price of their own: the difference to what was charged for them above.
    if cached and rates.cached_input is not None:
        total += cached * (rates.cached_input - rates.input)
    if written and rates.cache_write is not None:
        total += written * (rates.cache_write - rates.input)
    if reasoning and rates.reasoning is not None:
        total += reasoning * (rates.reasoning - rates.output)
    return total if total <= MOST_COST else None


def ceiling(routes: Iterable[Route], reserve: tuple[int, float]) -> Ceiling | None:
    """Find the most that asking one of `routes` once may cost; None where the price of one is unknown.

    `reserve`: tokens and seconds of an answer that nothing bounds.
    """
    tokens, seconds = reserve
    most_in = most_out = request = second = longest = 0
    for route in routes:
        if route.price is None:
            return None
        longest = max(longest, route.max_output_tokens or tokens)
        second = max(second, -(-route.price.per_hour // 3600))
        for _, rates in route.price.tiers:
            most_in = max(most_in, rates.input, rates.cached_input or 0, rates.cache_write or 0)
            most_out = max(most_out, rates.output, rates.reasoning or 0)
            request = max(request, rates.request)
    return Ceiling(most_in, most_out, request, second, seconds, longest)


def bound(request: Request, limits: Ceiling | None, reserve: int) -> tuple[int, Picodollars | None]:
    """Bound what one attempt may use: tokens in and out, and picodollars (None: unknown).

    No tokenizer makes more tokens than the text has bytes, and what a chat template adds is less than the JSON around
    each message. An image, file or sound that is only named is taken for `reserve` tokens.
    """
    body, fields = request.body, request.fields
    tokens_in = len(body)
    if b'_url"' in body or b'"file_id"' in body:
        tokens_in += reserve * sum(map(body.count, _NAMED_ELSEWHERE))
    asked = "max_completion_tokens" in fields and _asked_for(fields["max_completion_tokens"])
    if not asked:
        asked = "max_tokens" in fields and _asked_for(fields["max_tokens"])
    tokens_out = asked or (reserve if limits is None else limits.output_tokens)
    if "n" in fields:
        tokens_out *= max(_asked_for(fields["n"]), 1)
    if limits is None:
        return tokens_in + tokens_out, None
    money = limits.request + tokens_in * limits.input + tokens_out * limits.output
    if limits.second:
        money += limits.second * math.ceil(limits.seconds)
    return tokens_in + tokens_out, min(money, MOST_COST)


_NAMED_ELSEWHERE = (b'"image_url"', b'"file_id"', b'"file_url"')


def _asked_for(raw: msgspec.Raw) -> int:
    """A whole number among a request's members; 0 where it is none."""
    try:
        return min(max(_whole(raw), 0), _MOST_TOKENS)
    except msgspec.DecodeError:
        return 0


_whole = msgspec.json.Decoder(int).decode


def _consistent(usage: Usage) -> Usage:
    input_tokens, output_tokens = max(usage.input_tokens, 0), max(usage.output_tokens, 0)
    cached = min(max(usage.cached_input_tokens, 0), input_tokens)
    written = min(max(usage.cache_write_tokens, 0), input_tokens - cached)
    reasoning = min(max(usage.reasoning_tokens, 0), output_tokens)
    return Usage(input_tokens, output_tokens, cached, written, reasoning)
