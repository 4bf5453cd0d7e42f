"""One request, from its bytes to its durable answer: the plan is run here, by callbacks.

    begin -> decide -> attempt -> (fail over | retry)* -> answer -> receipt durable -> the answer's end goes out

The decisions are elsewhere and pure (`router`, `cascade`, `receipts`, the dialect); they are only carried out here.
Nothing of it knows uvicorn or ASGI: whoever has a caller gives a `Sink`.
"""

from upstack.application.gateway.exchange.attempts import Exchange

__all__ = ["Exchange"]
