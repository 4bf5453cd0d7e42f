"""An exchange that another system recorded, and the receipt it becomes."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from upstack.core.store.ids import id_of, outcome_id
from upstack.core.types import Attempt, Outcome, Picodollars, Receipt, Usage

SAID = ("licence", "consent", "purpose", "residency")  # what may be said of a row's rights
_MOST_USD = 1e6  # of one request


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One request and what came of it, as a source tells. None: it does not say."""

    source: bytes  # what tells it from all others of its format: an id, or all that is said of it
    model: str
    provider: str
    request: bytes | None = None  # a chat completion request
    answer: bytes | None = None  # a chat completion
    task: str | None = None
    subject: str | None = None
    time: float | None = None  # Unix seconds
    status: int = 200
    error: str | None = None
    stream: bool = False
    usage: Usage | None = None
    cost: Picodollars | None = None
    first_byte_s: float | None = None
    duration_s: float | None = None
    truth: Any = None  # the right answer, where the source has it
    rights: Any = None  # what the source says of them
    score: float | None = None  # how good the answer was, in 0 to 1

    def receipt(self, form: str, where: str, task: str | None, time: float) -> Receipt:
        """Make the receipt: of a time where there is none, and of an id that is the same whenever it is made."""
        created_at = time if self.time is None else self.time
        digest = hashlib.sha256(form.encode() + b"\0" + self.source).digest()
        route = f"{self.provider}/{self.model}"
        answered = self.error is None
        attempt = Attempt(
            route,
            self.provider,
            self.model,
            f"imported:{form}",
            0,
            self.status,
            self.error,
            0.0,
            self.first_byte_s,
            float(self.duration_s or 0.0),
            self.usage,
            None,
            self.cost,
        )
        kept = self.request is not None or self.answer is not None
        return Receipt(
            id=id_of(created_at, digest),
            created_at=created_at,
            state="answered" if answered else "failed",
            model=route if self.provider else task or self.task or "",
            task=task or self.task,
            strategy="imported",
            plan=route if self.provider else "",
            why=f"imported from {where} ({form}); not served by this gateway",
            route=route if answered and self.provider else None,
            stream=self.stream,
            status=self.status,
            error=self.error,
            first_byte_s=self.first_byte_s,
            duration_s=float(self.duration_s or 0.0),
            usage=self.usage,
            cost_picodollars=self.cost if self.provider else 0,
            attempts=(attempt,) if self.provider else (),
            capture="full" if kept else "none",
            request=self.request,
            answer=self.answer,
            subject=self.subject if kept else None,
        )

    def outcome(self, form: str, receipt: Receipt) -> Outcome | None:
        """What the source says of the answer, None where that is nothing; told when the request came in."""
        truth = self.truth if receipt.capture == "full" else None
        if truth is None and self.score is None:
            return None
        own_id = outcome_id(receipt.id)
        right = truth.encode() if isinstance(truth, str) else msgspec.json.encode(truth)
        return Outcome(
            id=own_id,
            created_at=receipt.created_at,
            observed_at=receipt.created_at,
            receipt=receipt.id,
            name="outcome",
            value=self.score,
            source=f"imported:{form}",
            idempotency_key=own_id,
            demonstration=None if truth is None else right,
            subject=receipt.subject,
        )


def picodollars(usd: object) -> Picodollars | None:
    """Read a stated cost in USD. 0 is what most sources write where they know no price: it is unknown here."""
    if isinstance(usd, bool) or not isinstance(usd, int | float) or not 0 < usd <= _MOST_USD:
        return None
    return round(usd * 10**12)


def completion(model: str, content: str | None, finish_reason: str | None, usage: Usage | None) -> bytes:
    """Make a chat completion of a text."""
    whole: dict[str, Any] = {
        "object": "chat.completion",
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content},
                "finish_reason": finish_reason or "stop",
            }
        ],
    }
    if usage is not None:
        whole["usage"] = {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }
    return msgspec.json.encode(whole)


def said_of(rights: Any) -> dict[str, Any]:
    """What a source's word on rights says in ours: an object, or the name of a licence."""
    if isinstance(rights, str):
        return {"licence": rights}
    return {name: rights[name] for name in (*SAID, "source", "terms") if rights.get(name)} if rights else {}


def said_in_words(rights: Any) -> str | None:
    """The same as it is kept; None where nothing is said."""
    said = said_of(rights) if isinstance(rights, str | dict) else {}
    return msgspec.json.encode(said).decode() if said else None
