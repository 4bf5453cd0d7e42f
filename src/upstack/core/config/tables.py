"""The tables of `upstack.toml`: one frozen struct each, with what may stand in it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from upstack.core.config.rights import RightsConfig
from upstack.core.types import DAY_S, Capture

NAME = r"[A-Za-z0-9][A-Za-z0-9._:-]*"  # of providers, routes, tasks, keys and teams
HASH = r"sha256:[0-9a-f]{64}"  # of a virtual key


class TimeoutsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one attempt, in seconds."""

    connect: float = 10.0  # to a connection, TLS included
    first_byte: float = 120.0  # from the request sent to the answer's first byte, and to a stream's first content
    between_bytes: float = 60.0  # of silence in the middle of an answer; not counted while the caller does not read
    total: float = 900.0  # of the whole attempt


class ProviderConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A supplier. A name from the catalogue needs only what differs from its row."""

    base_url: str | None = None  # up to and with "/v1"; the catalogue knows that of its rows
    api_key: str | None = None  # a secret reference: "env:NAME" or "file:/path"
    api_keys: tuple[str, ...] = ()  # several: the load is balanced over them
    auth: str | None = None  # "bearer", "none", or the name of the header that takes the key ("api-key")
    api_version: str | None = None  # goes into the query of every call, as Azure asks
    chat_path: str | None = None  # after base_url; may hold {model}
    usage_in_stream: bool | None = None  # understands stream_options.include_usage; false for those that refuse it
    prices_from: str | None = None  # the provider's name in the price list
    timeouts: TimeoutsConfig = TimeoutsConfig()
    ca_bundle: str | None = None  # PEM file of authorities, in place of the system's
    client_cert: str | None = None  # PEM file shown to the provider
    client_key: str | None = None  # PEM file of its key, where that is apart
    residency: str | None = None  # label of its routes, such as "onsite"


class BudgetConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The most that may be spent, in USD; days and months are those of UTC."""

    day: float | None = None
    month: float | None = None
    total: float | None = None


class RateConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much may be asked. A minute is the last 60 seconds."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None  # input and output
    parallel_requests: int | None = None


class RouteConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A route with a name of its own."""

    model: str  # "provider/model"
    residency: str | None = None  # label, in place of the provider's
    max_output_tokens: int | None = None  # the most its model says in one answer: bounds what a budget must hold for it


TaskStrategy = Literal["fallback", "first", "auto", "single", "agree", "cascade", "confidence", "precall"]
UNCERTIFIED = ("fallback", "first")


class TaskConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A recurring kind of request: which routes may answer it, in which order."""

    reference: str | None = None  # the route one would pay for if price did not matter
    candidates: tuple[str, ...] = ()  # in this order, the reference last unless named; "student/TASK": docs/loop.md
    strategy: TaskStrategy = "fallback"  # asks in that order; "first": that alone; the others: docs/certified.md
    capture: Capture | None = None  # in place of server.capture
    residency: tuple[str, ...] = ()  # answers may come only from routes with one of these labels; empty: from any
    encrypt: bool | None = None  # in place of server.encrypt
    value_usd: float | None = None  # what a good answer is worth
    maturity_days: float = 0.0  # in which an answer without an outcome is not yet known to be good or bad
    on_unprofitable: Literal["report", "refuse"] = "report"  # what becomes of a request expected to cost more than that
    grader: str | None = (
        None  # "exact", "contains", each with normalisers ("exact:number"), "json", or "module:function"
    )
    fields: dict[str, float] = {}  # weights of the JSON grader's fields; 1 where none is said, 0 leaves one out
    schema: str | None = None  # file of the JSON schema of its answers: a student chooses among the values it lists
    aim_loss: float | None = None  # a plan that seems to lose more does not serve, though proved; with a student 0
    labels: bool = False  # people label disagreements: plans are tried that could not be proved without
    judge: str | None = None  # a route that judges disagreements, blind; label_rate puts it right
    label_rate: float = 1.0  # chance that a judged disagreement is put before a human
    max_loss: float = 0.02  # excess loss over the reference's that is tolerated
    confidence: float = 0.95  # that it is not above that
    shadow_rate: float = 0.05  # chance that a request becomes a check: all routes are asked, beside the answer
    shadow_budget_usd: BudgetConfig = BudgetConfig(day=1.0)  # what checks may cost; a day 1 where nothing is said
    min_checks: int = 50  # without which nothing is certified,
    min_hours: float = 24.0  # nor before checks span so long
    revoke_loss: float | None = None  # excess above which it is revoked; default: somewhat above max_loss
    false_alarm_checks: int = 10_000  # after which one false revocation may come, on average
    expires_days: float = 30.0  # after which a certificate must be earned anew
    budget_usd: BudgetConfig = BudgetConfig()
    rate: RateConfig = RateConfig()


class KeyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A virtual key, as `upstack keys new NAME` makes it. With the first one, nobody is served without."""

    hash: str  # of the key, which is kept nowhere
    # app asks models, feedback tells outcomes of any receipt, a reviewer's are evidence, admin sees /admin and /metrics
    role: Literal["app", "feedback", "reviewer", "admin"] = "app"
    team: str | None = None  # that it belongs to
    tasks: tuple[str, ...] = ()  # that it may ask for; with neither tasks nor routes: anything
    routes: tuple[str, ...] = ()  # that it may ask for by name
    expires: datetime | None = None  # when it ends, such as 2027-01-31T00:00:00Z
    old_hash: str | None = None  # of the key before it, which is good until old_until
    old_until: datetime | None = None
    capture: Capture | None = None  # the least of this and what the task or server says is kept
    budget_usd: BudgetConfig = BudgetConfig()
    rate: RateConfig = RateConfig()


class TeamConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits that all keys of a team share."""

    budget_usd: BudgetConfig = BudgetConfig()
    rate: RateConfig = RateConfig()


class LoopConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How students are made, of tasks that have "student/TASK" among their candidates."""

    encoder: str | None = None  # folder of a sentence encoder: config.json, vocab.txt and model.safetensors of a BERT
    usd_per_hour: float = 0.1  # of the machine a student runs on: what each second of an answer costs, 3600 times over
    fewest: int = 50  # rows to learn from, for a first student
    growth: float = 1.3  # of what there is to learn, for the next one


class PriceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """USD per million tokens, or per hour. Stands before the release's price list: for newer prices, and your own."""

    input: float | None = None
    output: float | None = None
    cached_input: float | None = None  # read from the provider's cache; without it, what input costs
    usd_per_hour: float | None = None  # of a machine of your own: what each second of an answer costs, 3600 times over


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The gateway process."""

    host: str = "127.0.0.1"  # beyond loopback only where there are keys
    port: int = 4000  # 0 picks a free one
    workers: int = 1  # processes that serve; more than one share the port, the limits and the ledger's writer
    receipts: Literal["required", "best-effort", "off"] = "required"  # waited for; losses counted; none, for measuring
    capture: Capture = "full"  # what the ledger keeps of requests and answers: them, a salted digest, or nothing
    ledger: str = "upstack.db"  # a SQLite file, or a PostgreSQL URL; a URL with a password: "env:NAME" or "file:/path"
    log: Literal["text", "json"] = "text"  # on standard error; ids and sizes, never content or secrets
    log_level: Literal["debug", "info", "warning"] = "info"  # debug: a line for each request
    encrypt: bool = False  # what the ledger keeps of requests and answers, each subject's under a key of its own
    keystore: str | None = None  # the file of its keys; default: the ledger's name and .keys, or upstack.keys
    retention_days: float = 0.0  # after which receipts and outcomes are removed; 0: never
    content_retention_days: float = 0.0  # after which requests and answers alone are
    default_reserve_tokens: int = 4096  # of an answer that neither max_tokens nor its route bounds; of an image by URL
    default_reserve_seconds: float = 60.0  # of an answer priced by the hour
    max_body_bytes: int = 32 * 1024 * 1024  # of a request
    max_answer_bytes: int = 32 * 1024 * 1024  # of an answer, and of what the ledger keeps of a streamed one
    ledger_queue_bytes: int = 64 * 1024 * 1024  # waiting to be written; above it requests are refused or rows dropped
    request_timeout: float = 30.0  # seconds a client may take to send its request
    keep_alive: float = 75.0  # seconds an idle client connection is kept
    drain: float = 30.0  # seconds streams may take to finish after SIGTERM
    retries: int = 2  # attempts after the first pass over a plan's routes, at most 100


MOST_USD = 1_000_000
MOST_DAYS = 36_500
_MOST = 256 * 1024 * 1024  # request and answer share a row of the ledger, which ends at 10**9 bytes
RANGES: dict[str, tuple[float, float]] = {  # of the numbers above, both ends included
    "port": (0, 65_535),
    "workers": (1, 256),
    "max_body_bytes": (1, _MOST),
    "max_answer_bytes": (1, _MOST),
    "ledger_queue_bytes": (1, 2**40),
    "request_timeout": (0.001, DAY_S),
    "keep_alive": (0.0, DAY_S),
    "drain": (0.0, DAY_S),
    "retries": (0, 100),
    "retention_days": (0.0, MOST_DAYS),
    "content_retention_days": (0.0, MOST_DAYS),
    "default_reserve_tokens": (1, 10_000_000),
    "default_reserve_seconds": (0.001, DAY_S),
}

CERTIFIED_RANGES: dict[str, tuple[float, float]] = {
    "shadow_rate": (0.0, 1.0),
    "label_rate": (0.01, 1.0),
    "aim_loss": (-1.0, 1.0),
    "min_checks": (1, 10**9),
    "min_hours": (0.0, 24.0 * MOST_DAYS),
    "revoke_loss": (0.0, 1.0),
    "false_alarm_checks": (10, 10**12),
    "expires_days": (0.0, MOST_DAYS),
}


LOOP_RANGES: dict[str, tuple[float, float]] = {
    "usd_per_hour": (0.0, MOST_USD),
    "fewest": (2, 10**9),
    "growth": (1.01, 1000.0),
}


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    server: ServerConfig = ServerConfig()
    providers: dict[str, ProviderConfig] = {}
    routes: dict[str, RouteConfig] = {}
    tasks: dict[str, TaskConfig] = {}
    prices: dict[str, PriceConfig] = {}  # by "provider/model" or a route's name
    loop: LoopConfig = LoopConfig()
    rights: RightsConfig = RightsConfig()
    keys: dict[str, KeyConfig] = {}
    teams: dict[str, TeamConfig] = {}


class PriceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of prices and nothing else."""

    prices: dict[str, PriceConfig] = {}
