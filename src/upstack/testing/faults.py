"""The ways a provider fails, and when each of them strikes."""

from __future__ import annotations

import enum
from typing import Self, cast


class Strikes(enum.Enum):
    """When a fault spoils an answer."""

    NEVER = "never"  # odd, and yet the answer is good
    BEFORE = "before"  # before the first content: a gateway can still fail over unseen
    AFTER = "after"  # after some content was sent


_NEVER, _BEFORE, _AFTER = Strikes.NEVER, Strikes.BEFORE, Strikes.AFTER


class Fault(enum.StrEnum):
    """One way to fail; `plain` and `stream` say when it strikes an answer of that kind.

    A plain answer is of use only when it is whole, so whatever breaks one strikes before its content. A stream with
    content is struck after `tokens_before` pieces of it (`FlakyProvider`, three by default). Faults that only streams
    can have leave plain answers good, or break them in the way that is nearest.
    """

    plain: Strikes
    stream: Strikes

    def __new__(cls, value: str, plain: Strikes, stream: Strikes) -> Self:
        """Attach to the value when the fault strikes."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.plain = plain
        member.stream = stream
        return member

    @classmethod
    def named(cls, value: str) -> Fault:
        """Find a fault by its value; ValueError for one that is none."""
        found = cls._value2member_map_.get(value)
        if found is None:
            raise ValueError(f"no such fault: {value!r}; there are: {', '.join(fault.value for fault in cls)}")
        return cast(Fault, found)

    # Connections.
    REFUSED = "refused", _BEFORE, _BEFORE  # nobody listens
    RESET_BEFORE_HEADERS = "reset_before_headers", _BEFORE, _BEFORE  # RST once the request is read
    RESET_AFTER_HEADERS = "reset_after_headers", _BEFORE, _BEFORE
    RESET_MID_BODY = "reset_mid_body", _BEFORE, _AFTER  # between two events, half-way through a plain body
    RESET_MID_CHUNK = "reset_mid_chunk", _BEFORE, _AFTER  # in the middle of an event and its HTTP chunk
    CLOSE_BEFORE_HEADERS = "close_before_headers", _BEFORE, _BEFORE  # FIN in place of an answer
    CLOSE_MID_STREAM = "close_mid_stream", _BEFORE, _AFTER  # FIN in a chunked body without its last chunk
    CLOSE_UNFRAMED = "close_unframed", _BEFORE, _AFTER  # the body's end is the connection's, and comes too soon
    EARLY_CLOSE = "early_close", _NEVER, _NEVER  # a good answer, then FIN unannounced: reuse meets a stale connection

    # Silence and slowness.
    STALL_BEFORE_HEADERS = "stall_before_headers", _BEFORE, _BEFORE
    STALL_BEFORE_FIRST_TOKEN = "stall_before_first_token", _BEFORE, _BEFORE  # headers and role, then nothing
    STALL_BETWEEN_TOKENS = "stall_between_tokens", _BEFORE, _AFTER  # half of a plain body, then nothing
    LATENCY = "latency", _NEVER, _NEVER  # a good answer after `pause_s`
    SLOW_DRIP = "slow_drip", _NEVER, _NEVER  # a good answer byte by byte, `pause_s` apart

    # HTTP that is wrong.
    MALFORMED_HTTP = "malformed_http", _BEFORE, _BEFORE  # garbage for a status line
    MALFORMED_CHUNK = "malformed_chunk", _BEFORE, _AFTER  # a chunk size that is no number
    SHORT_BODY = "short_body", _BEFORE, _AFTER  # content-length is larger than what comes before FIN
    LONG_BODY = "long_body", _BEFORE, _AFTER  # content-length is smaller than the body
    LENGTH_AND_CHUNKED = "length_and_chunked", _BEFORE, _BEFORE  # content-length and transfer-encoding both
    HEADER_FLOOD = "header_flood", _BEFORE, _BEFORE  # headers without end, `size_bytes` at most (64 MiB)
    GZIP_BODY = "gzip_body", _NEVER, _NEVER  # a good answer, content-encoding gzip
    GZIP_BOMB = "gzip_bomb", _BEFORE, _BEFORE  # a small body that unpacks to `size_bytes` (256 MiB)

    # Statuses.
    STATUS_400 = "status_400", _BEFORE, _BEFORE
    STATUS_401 = "status_401", _BEFORE, _BEFORE
    STATUS_404 = "status_404", _BEFORE, _BEFORE
    STATUS_429 = "status_429", _BEFORE, _BEFORE  # Retry-After in seconds
    STATUS_429_DATE = "status_429_date", _BEFORE, _BEFORE  # Retry-After as an HTTP date
    STATUS_500 = "status_500", _BEFORE, _BEFORE
    STATUS_502 = "status_502", _BEFORE, _BEFORE  # HTML, as from a proxy
    STATUS_503 = "status_503", _BEFORE, _BEFORE  # Retry-After in seconds
    STATUS_529 = "status_529", _BEFORE, _BEFORE

    # Content that is wrong.
    WRONG_CONTENT_TYPE = "wrong_content_type", _BEFORE, _BEFORE  # an HTML page with status 200
    ERROR_BODY_200 = "error_body_200", _BEFORE, _BEFORE  # an error object as JSON with status 200, streams as well
    ERROR_IN_STREAM = "error_in_stream", _BEFORE, _BEFORE  # the first event is an error object
    ERROR_MID_STREAM = "error_mid_stream", _BEFORE, _AFTER  # an error object after some tokens
    TRUNCATED_JSON = "truncated_json", _BEFORE, _AFTER  # well framed, and the JSON is cut
    MALFORMED_JSON = "malformed_json", _BEFORE, _BEFORE  # no JSON from the first event on
    MALFORMED_SSE = "malformed_sse", _BEFORE, _AFTER  # one data line in the stream is no JSON
    INVALID_UTF8 = "invalid_utf8", _BEFORE, _AFTER  # bytes inside a JSON string that are no UTF-8
    EMPTY_STREAM = "empty_stream", _BEFORE, _BEFORE  # nothing but [DONE]; a plain answer without choices
    EMPTY_STOP = "empty_stop", _NEVER, _NEVER  # no content and finish_reason "stop": a model may say nothing
    MISSING_DONE = "missing_done", _NEVER, _NEVER  # finish_reason and no [DONE]: whole, as some providers end
    MISSING_FINISH = "missing_finish", _NEVER, _AFTER  # neither finish_reason nor [DONE]: the answer is cut
    DUPLICATE_CHUNK = "duplicate_chunk", _NEVER, _NEVER  # an event twice: nothing tells it from a repeated word
    HUGE_EVENT = "huge_event", _NEVER, _NEVER  # one event, or plain body, of `size_bytes` (2 MiB)

    def harmless(self, *, stream: bool) -> bool:
        """Whether the answer is good in spite of it."""
        return (self.stream if stream else self.plain) is Strikes.NEVER

    def before_content(self, *, stream: bool) -> bool:
        """Whether it strikes before the first content, so that nobody need notice."""
        return (self.stream if stream else self.plain) is Strikes.BEFORE
