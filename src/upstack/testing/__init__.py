"""Fakes that ship, and conformance suites for those who write plug-ins. Nothing here goes beyond loopback.

Providers are real HTTP servers: `with EchoProvider() as provider: ... provider.base_url`, or from a shell
`python -m upstack.testing echo --port 9000`.
"""

from upstack.testing.answers import Answer, ChatRequest, Message, ToolCall
from upstack.testing.calls import RecordingReceiver, ask, make_request, make_target
from upstack.testing.checks import BACKEND_CHECKS, Subject, check_backend
from upstack.testing.clock import FakeClock
from upstack.testing.connection import Recorded
from upstack.testing.faults import Fault, Strikes
from upstack.testing.flaky import FlakyProvider
from upstack.testing.http_checks import HTTP_BACKEND_CHECKS, check_http_backend, eventually
from upstack.testing.providers import EchoProvider, FloodProvider, ScriptedProvider
from upstack.testing.raw import End, RawClient, RawResponse, post_bytes
from upstack.testing.receipts import make_receipt
from upstack.testing.server import Blackhole, FakeProvider
from upstack.testing.store_checks import STORE_CHECKS, check_store
from upstack.testing.wire import Move, Step, error_response, response

__all__ = [  # noqa: RUF022 - in plain order, as everywhere in the house
    "Answer",
    "BACKEND_CHECKS",
    "Blackhole",
    "ChatRequest",
    "EchoProvider",
    "End",
    "FakeClock",
    "FakeProvider",
    "Fault",
    "FlakyProvider",
    "FloodProvider",
    "HTTP_BACKEND_CHECKS",
    "Message",
    "Move",
    "RawClient",
    "RawResponse",
    "Recorded",
    "RecordingReceiver",
    "STORE_CHECKS",
    "ScriptedProvider",
    "Step",
    "Strikes",
    "Subject",
    "ToolCall",
    "ask",
    "check_backend",
    "check_http_backend",
    "check_store",
    "error_response",
    "eventually",
    "make_receipt",
    "make_request",
    "make_target",
    "post_bytes",
    "response",
]
