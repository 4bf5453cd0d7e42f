"""The frozen values that cross layers. Objects with behaviour do not.

Those made for every request are `gc=False`: they hold no cycles, and the collector need not look at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

DAY_S = 86_400.0
STUDENT = "student"  # the provider of the students in the ledger

Picodollars = int  # 1 USD = 10**12; a price of 1 USD per million tokens is 1,000,000 a token
Capture = Literal["full", "hash", "none"]
# "reference": of a task for which nothing is certified; "shadow": of what is asked beside a check.
Strategy = Literal[
    "fallback", "first", "single", "agree", "cascade", "confidence", "precall", "reference", "shadow", "judge"
]


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens an attempt used. Cached and reasoning tokens are *parts* of input and output, not additions."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0  # part of input_tokens, read from the provider's prompt cache
    cache_write_tokens: int = 0  # part of input_tokens, written to the provider's prompt cache
    reasoning_tokens: int = 0  # part of output_tokens
    audio_tokens: int = 0  # parts of both, in one sum; the ledger has it with each attempt alone


class Rates(msgspec.Struct, frozen=True):
    """Prices from one number of input tokens on, in picodollars per token.

    A kind without a price of its own costs what `input` (cached, cache write) or `output` (reasoning) costs.
    """

    input: Picodollars
    output: Picodollars
    cached_input: Picodollars | None = None
    cache_write: Picodollars | None = None
    reasoning: Picodollars | None = None
    request: Picodollars = 0  # flat, per request


class Price(msgspec.Struct, frozen=True):
    """What a route costs. `tiers` are (input tokens above which it applies, rates), ascending, first at 0."""

    version: str  # what a receipt names, e.g. "genai-prices 0.2.3 openai/gpt-4o 8c1f..." or "config 71ab..."
    tiers: tuple[tuple[int, Rates], ...]
    text_only: bool = False  # audio costs something else: usage with audio in it has no known cost
    per_hour: Picodollars = 0  # of a machine of one's own, for the time it works on an answer


class Ceiling(msgspec.Struct, frozen=True):
    """The most that an attempt of a plan may cost: rates in picodollars, per token, request and second."""

    input: Picodollars
    output: Picodollars
    request: Picodollars
    second: Picodollars
    seconds: float  # that it is reserved for
    output_tokens: int  # of an answer that the request does not bound


class Timeouts(msgspec.Struct, frozen=True):
    """Limits of one attempt, in seconds."""

    connect: float = 10.0
    first_byte: float = 120.0  # from the request sent to the answer's first byte, and to a stream's first content
    between_bytes: float = 60.0
    total: float = 900.0


class Tls(msgspec.Struct, frozen=True):
    """How a provider's certificate is checked, and which one is shown to it. Paths of PEM files."""

    ca_bundle: str | None = None  # in place of the system's authorities
    client_cert: str | None = None
    client_key: str | None = None


def student_route(task: str, student: str) -> str:
    """The name of a student's route."""
    return f"{STUDENT}/{task}:{student}"


def student_of(route: str) -> str | None:
    """Which student a route is; None where it is another."""
    provider, _, rest = route.partition("/")
    return rest.rpartition(":")[2] if provider == STUDENT and ":" in rest else None


class Provider(msgspec.Struct, frozen=True):
    """A supplier of tokens, ready to be called."""

    name: str
    backend: str  # "openai" (any OpenAI-compatible URL) or "replay"
    base_url: str
    headers: tuple[tuple[tuple[str, str], ...], ...] = ((),)  # per credential: header name and *secret* value
    chat_path: str = "/chat/completions"  # may hold {model}
    query: tuple[tuple[str, str], ...] = ()
    timeouts: Timeouts = Timeouts()
    tls: Tls = Tls()
    usage_in_stream: bool = True  # understands stream_options.include_usage
    catalog: str | None = None  # the provider's name in the price list, where it differs; "": it has none there

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"Provider(name={self.name!r}, base_url={self.base_url!r})"


class Route(msgspec.Struct, frozen=True):
    """One way to get an answer."""

    name: str  # as a caller may name it: "cheap" or "openai/gpt-5"
    provider: Provider
    model: str  # as the provider names it
    version: str  # the behaviour version: what evidence belongs to
    price: Price | None = None  # None: unknown, never 0
    residency: str | None = None
    max_output_tokens: int | None = None  # the most its model says in one answer


class Target(msgspec.Struct, frozen=True):
    """A route with one of its provider's credentials; `key` is what health is kept under."""

    route: Route
    credential: int
    key: str  # "cheap" or "cheap#1" for the second credential


class Terms(msgspec.Struct, frozen=True):
    """What has to be proved before a cheaper plan answers a task, and when it is revoked."""

    reference: tuple[str, str]  # route and behaviour version
    arms: tuple[tuple[str, str], ...]  # of what may answer in its place
    strategy: str
    grader: str
    fields: Mapping[str, float]
    max_loss: float
    confidence: float
    min_checks: int
    min_hours: float
    revoke_loss: float
    false_alarm_checks: int
    expires_days: float
    maturity_days: float
    judge: str | None = None  # a route that judges disagreements
    label_rate: float = 1.0  # chance that one is put before a human, too
    labelled: bool = False  # people say of disagreements what is right: to choose plans by, one is not yet a loss
    aim: float = 1.0  # a plan that seems to lose more than that, over the reference, does not serve though it is proved


class Proved(msgspec.Struct, frozen=True):
    """What the ledger's certificates say of a task at present."""

    certificate: str | None = None  # id; None: nothing is certified
    strategy: str = "reference"
    arms: tuple[tuple[str, str], ...] = ()  # routes, in the order they are asked before the reference, and versions
    words: str = ""
    expires_at: float = 0.0  # Unix seconds
    plan: bytes = b""  # the policy, as it is kept
    eager: bool = False  # a much cheaper plan is in sight: all requests are checks until it is proved
    alarmed: bool = False  # the last one was revoked, and none has been issued since: all requests are checks


class Task(msgspec.Struct, frozen=True):
    """A recurring kind of request."""

    name: str
    routes: tuple[str, ...]  # fallback order
    reference: str | None = None
    strategy: str = "fallback"
    terms: Terms | None = None  # None: nothing is to be proved
    shadow_rate: float = 0.0
    capture: Capture = "full"
    residency: tuple[str, ...] = ()  # empty: anywhere
    encrypt: bool = False
    value: Picodollars | None = None  # what a good answer is worth
    refuse_unprofitable: bool = False
    learns: bool = False  # a student of its own is among its candidates
    schema: bytes | None = None  # JSON schema of its answers


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request, as the dialect read it. `fields` are the top-level members of its body, values untouched."""

    model: str
    stream: bool
    wants_usage: bool  # asked for usage at the end of its stream
    fields: Mapping[str, msgspec.Raw]
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()  # those of the caller's that may go upstream
    episode: str | None = None
    subject: str | None = None


class Plan(msgspec.Struct, frozen=True, gc=False):
    """The ordered attempts for one request, and why these."""

    model: str  # as the caller named it
    task: str | None
    strategy: Strategy
    targets: tuple[Target, ...]
    retries: int  # attempts after the first pass over the targets
    capture: Capture
    why: str
    encrypt: bool = False
    ceiling: Ceiling | None = None  # None: a target's price is unknown
    arms: tuple[Target, ...] = ()  # what `policy` may ask before any of `targets`
    policy: object = None  # an inference.strategies.policy.Policy; None: the first target that answers will do
    shadow_rate: float = 0.0  # chance that the request becomes a check
    coin: float | None = None  # that chance, where the coin fell
    check_of: str | None = None


class State(msgspec.Struct, frozen=True):
    """The immutable picture a decision reads; swapped whole, never changed in place."""

    generation: int  # of the configuration
    providers: Mapping[str, Provider]
    routes: Mapping[str, Route]
    tasks: Mapping[str, Task]
    plans: Mapping[str, Plan]  # by what a caller may name: the plan when every target is well
    resting: Mapping[str, float] = {}  # target key -> monotonic seconds until which it rests
    held: Mapping[str, float] = {}  # those of them whose provider asked for it, by a Retry-After
    capture: Capture = "full"
    retries: int = 2
    encrypt: bool = False
    proved: Mapping[str, Proved] = {}  # by task
    students: Mapping[str, tuple[str, ...]] = {}  # by task: the ids of those that live, the newest last
    reserve: tuple[int, float] = (4096, 60.0)  # tokens and seconds held for an answer that nothing bounds
    learned: tuple[str, ...] = ()  # plans that no configuration names, but callers; the oldest first


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """What came of asking one route once. Times in seconds."""

    route: str
    provider: str
    model: str
    version: str
    credential: int
    status: int | None  # HTTP status, None where none came
    failure: str | None  # None: it answered
    started_s: float  # after the request came in
    first_byte_s: float | None  # after the attempt started
    duration_s: float
    usage: Usage | None = None
    price_version: str | None = None
    cost_picodollars: Picodollars | None = None


ReceiptState = Literal["answered", "truncated", "failed", "cancelled", "open"]


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The durable record of one request."""

    id: str
    created_at: float  # Unix seconds
    state: ReceiptState
    model: str  # as the caller named it
    task: str | None
    strategy: Strategy | Literal["imported"]
    plan: str  # the targets in the order they would be asked: "cheap, openai/gpt-4o#1"
    why: str
    route: str | None  # the one that answered
    stream: bool
    status: int  # HTTP status the caller saw
    error: str | None  # code of what went wrong
    first_byte_s: float | None
    duration_s: float
    usage: Usage | None
    cost_picodollars: Picodollars | None  # all attempts; None where one that may have cost has no known price or usage
    attempts: tuple[Attempt, ...]
    capture: Capture
    request: bytes | None = None  # the caller's body; a salted digest under capture = "hash"
    answer: bytes | None = None  # the answer as one chat completion, streamed or not
    key: str | None = None  # name of the virtual key that asked
    team: str | None = None
    episode: str | None = None  # the caller's name for what several requests belong to
    reserved_picodollars: Picodollars | None = None  # held for each attempt before it was made: the most it may cost
    subject: str | None = None  # whom or what the content is about, kept and erased with it
    encrypted: bool = False  # the content is, in the ledger
    coin: float | None = None  # chance of the coin that fell for it, which made it a check
    check_of: str | None = None  # id of the check that this was asked for, beside it


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an answer, as somebody told. Times in Unix seconds. Of a name the latest counts."""

    id: str
    created_at: float  # when it was recorded
    observed_at: float  # when it was so
    receipt: str | None = None  # that it is about, or:
    episode: str | None = None
    only_key: str | None = None  # of an episode: about the requests of this key alone
    name: str  # of what was looked at
    value: bool | float | None = None  # good or not, or how good in 0 to 1
    withdrawn: bool = False  # what was told before is not known any more
    source: str  # who or what says so
    key: str | None = None  # name of the virtual key that told
    idempotency_key: str
    comment: bytes | None = None
    demonstration: bytes | None = None  # the right answer
    subject: str | None = None
    encrypted: bool = False  # comment and demonstration are, in the ledger
