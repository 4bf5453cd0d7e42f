"""Every error Upstack raises on purpose.

    UpstackError
    ├── ConfigError        the configuration is wrong; nothing was started or changed
    ├── RequestError       the caller's: 4xx
    │   └── LimitError     a budget or a rate is used up, or the request is not worth its cost: 402, 429
    ├── SupplyError        a route did not deliver: retry, fail over, escalate
    ├── EvidenceError      no certificate, no rights, not enough data
    └── LedgerError        the ledger could not record or read

Each carries an HTTP status and the `type` and `code` of the OpenAI error shape. A message says what happened, where,
and what to do. It never carries content of a request, or a secret.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class UpstackError(Exception):
    """Base of all; `status`, `type` and `code` go into the OpenAI error body."""

    status: int = 500
    type: ClassVar[str] = "upstack_error"
    code: str = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status


class ConfigError(UpstackError):
    """The configuration cannot be used; the message names the key and what is allowed."""

    status = 422
    type = "config_error"
    code = "invalid_config"


class RequestError(UpstackError):
    """The caller's request cannot be served as it is (4xx); `param` names the field at fault."""

    status = 400
    type: ClassVar[str] = "invalid_request_error"
    code = "invalid_request"

    def __init__(
        self, message: str, *, code: str | None = None, status: int | None = None, param: str | None = None
    ) -> None:
        super().__init__(message, code=code, status=status)
        self.param = param


class LimitError(RequestError):
    """A budget or a rate is used up, or the request costs more than it is worth.

    `retry_after` in seconds, or None. `pending`: more of a budget is being asked for, so that waiting a moment helps.
    """

    status = 429
    type = "limit_error"
    code = "rate_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        pending: bool = False,
    ) -> None:
        super().__init__(message, code=code, status=status)
        self.retry_after = retry_after
        self.pending = pending


class Failure(enum.StrEnum):
    """How an attempt failed; the value is what receipts, metrics and error codes say."""

    REFUSED = "connection_refused"  # no connection: refused, DNS, TLS, proxy
    CONNECT_TIMEOUT = "connect_timeout"
    POOL_FULL = "pool_full"  # all the connections we allow to the origin were in use: our limit, not the provider's
    RESET = "connection_reset"  # the connection broke before the answer was whole
    STALE = "stale_connection"  # a pooled connection turned out closed before any byte came back
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    BETWEEN_BYTES_TIMEOUT = "between_bytes_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    RATE_LIMITED = "rate_limited"  # 429
    STATUS = "bad_status"  # any other status that is the provider's fault
    AUTH = "provider_auth"  # 401 / 403, or a code that says so: our key, not the caller's
    NOT_FOUND = "provider_not_found"  # 404: no such model or path
    MALFORMED = "malformed_answer"  # not HTTP, not JSON, not an answer
    TRUNCATED = "truncated_answer"  # ended before its end
    ERROR_IN_STREAM = "error_in_stream"  # an error object inside a 200
    TOO_LARGE = "answer_too_large"
    CALLER = "caller_error"  # 400 / 413 / 415 / 422: the provider says the request itself is wrong
    UNFIT = "request_unfit"  # this model cannot take the request, another may: a context that is too long
    STOPPING = "gateway_stopping"  # the gateway was told to stop and waits no longer
    RESIDENCY = "residency"  # the route's endpoint is not allowed for this task


class SupplyError(UpstackError):
    """One route did not deliver. `retry_after` is in seconds, from the provider, or None."""

    status = 502
    type = "upstream_error"
    code = "upstream_error"

    def __init__(
        self, failure: Failure, message: str, *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, code=failure.value, status=status)
        self.failure = failure
        self.retry_after = retry_after


class EvidenceError(UpstackError):
    """No certificate, no rights, or not enough data for what was asked."""

    status = 409
    type = "evidence_error"
    code = "no_evidence"


class LedgerError(UpstackError):
    """The ledger could not record or read; with `receipts = "required"` nothing is answered without it."""

    status = 503
    type = "ledger_error"
    code = "ledger_unavailable"
