"""The log: one line an event on standard error, for people or as JSON.

It carries ids and sizes, never content or secrets, at every level. That holds for what libraries log, too: of an error
its kind and places are told, not its text, which may quote anything; of a message the constant part. Only the fields
of FIELDS are written at all.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

import structlog

from upstack.core.types import Receipt

Kind = Literal["text", "json"]
Level = Literal["debug", "info", "warning"]

FIELDS = frozenset(
    {
        "event",
        "level",
        "timestamp",
        "receipt",
        "key",  # the name of a virtual key
        "task",
        "route",
        "state",
        "status",
        "code",
        "attempts",
        "request_bytes",
        "input_tokens",
        "output_tokens",
        "cost_picodollars",
        "duration_s",
        "url",
        "providers",
        "receipts",
        "ledger",
        "generation",
        "worker",
        "library",
        "error",  # the kind of an exception
        "places",  # where it was, innermost last
    }
)
_PLACES = 12  # of a traceback
_LONGEST = 2000  # characters of a text


def configure(kind: Kind = "text", level: Level = "info") -> None:
    """Set up the log of this process, libraries included."""
    least = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _describe_error,
            _keep_fields,
            structlog.processors.JSONRenderer() if kind == "json" else _as_text,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # as it is at that moment
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_FromLibraries()], level=max(least, logging.WARNING), force=True)


def log(event: str, **fields: object) -> None:
    """Tell the operator of something that happened; `event` is a constant or names what the operator configured."""
    structlog.get_logger().info(event, **fields)


def detail(event: str, **fields: object) -> None:
    """Tell of something that only who looks for a fault wants to know."""
    structlog.get_logger().debug(event, **fields)


def fault(event: str, error: BaseException) -> None:
    """Tell of an error that nobody expected, by its kind and places."""
    structlog.get_logger().error(event, exc_info=error)


def tell_request(receipt: Receipt, request_bytes: int) -> None:
    """Tell of a request that is over."""
    usage = receipt.usage
    detail(
        "request",
        receipt=receipt.id,
        key=receipt.key,
        task=receipt.task,
        route=receipt.route,
        state=receipt.state,
        status=receipt.status,
        code=receipt.error,
        attempts=len(receipt.attempts),
        request_bytes=request_bytes,
        input_tokens=None if usage is None else usage.input_tokens,
        output_tokens=None if usage is None else usage.output_tokens,
        cost_picodollars=receipt.cost_picodollars,
        duration_s=round(receipt.duration_s, 6),
    )


def is_detailed() -> bool:
    """Whether details are written: what they cost is spent only then."""
    return bool(structlog.get_logger().is_enabled_for(logging.DEBUG))


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """Log the loop's unhandled errors, too."""

    def handle(_: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            fault("an error nobody handled", error)
        else:
            structlog.get_logger().error("an error nobody handled")

    loop.set_exception_handler(handle)


def _describe_error(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    error = event.pop("exc_info", None)
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        frames = traceback.extract_tb(error.__traceback__)[-_PLACES:]
        event["places"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return event


def _keep_fields(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    kept = {name: value for name, value in event.items() if name in FIELDS}
    return {name: value[:_LONGEST] if isinstance(value, str) else value for name, value in kept.items()}


def _as_text(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    fields = {name: value for name, value in event.items() if name not in {"event", "level", "timestamp"}}
    places = fields.pop("places", [])
    told = "".join(f" {name}={value}" for name, value in fields.items() if value is not None)
    return "\n    ".join([f"upstack: {event['event']}{told}", *places])


class _FromLibraries(logging.Handler):
    """Takes what libraries log through the standard module."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the constant part of a message; its arguments may be anything."""
        level = "error" if record.levelno >= logging.ERROR else "warning"
        say = getattr(structlog.get_logger(), level)
        say(str(record.msg) if record.args else record.getMessage(), library=record.name, exc_info=record.exc_info)
