"""A student: what a teacher would answer to a request, with how likely that is right. In a millisecond, by numpy alone.

Each enumerated field of the answer has a head of its own, a weighted sum for each of its values; a field that copies a
piece of the request has one that weighs the pieces there are. The chances of all fields together are calibrated on rows
that the student had not seen. A request unlike all that it learned from is answered with no confidence.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from upstack.core.errors import ConfigError
from upstack.core.grams import KINDS
from upstack.core.traffic import text_of
from upstack.foundation.students.copying import Copier
from upstack.foundation.students.features import Features, Vocabulary
from upstack.foundation.students.tensors import from_bytes, to_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Encode = Callable[[str], Singles]

FORMAT = 1
_SURE = 1e-9  # chances are kept this far from 0 and 1


class Choice(msgspec.Struct, frozen=True, tag="choice"):
    """A field that takes one of a few values. Its weights are columns of the student's, from `start` on."""

    name: str | None  # None: it is the whole answer
    values: tuple[Any, ...]
    start: int


class Copy(msgspec.Struct, frozen=True, tag="copy"):
    """A field that copies what a pattern finds in the request."""

    name: str
    copier: Copier


class Calibration(msgspec.Struct, frozen=True):
    """From a raw chance to one that can be believed, and from which strangeness on there is none."""

    slope: float = 1.0  # of the logit
    offset: float = 0.0
    strange: float = math.inf

    def chance(self, raw: float) -> float:
        """Calibrate a chance, in 0 to 1."""
        raw = min(max(raw, _SURE), 1.0 - _SURE)
        return 1.0 / (1.0 + math.exp(-(self.slope * math.log(raw / (1.0 - raw)) + self.offset)))


class Facts(msgspec.Struct, frozen=True):
    """All of a student but its arrays."""

    task: str
    rung: str  # "linear" or "encoder"
    fields: tuple[Choice | Copy, ...]
    calibration: Calibration
    encoder: str | None = None  # digest of the encoder it stands on
    snapshot: str = ""  # digest of what it learned from
    conditions: tuple[str, ...] = ()  # under which alone it may serve
    obligations: tuple[str, ...] = ()  # what is owed for it
    format: int = FORMAT


class Said(msgspec.Struct, frozen=True):
    """What a student says to a request."""

    content: str
    confidence: float  # chance that it is right, in 0 to 1
    strange: bool  # the request is like nothing it learned from


class Student:
    """Ready to answer. `weights`: features x all values of all choices, float32; `reads`: what makes the features."""

    def __init__(self, facts: Facts, weights: Singles, bias: Singles, reads: Sequence[Vocabulary] | Encode) -> None:
        self.facts, self._weights, self._bias = facts, weights, bias
        self._encode = reads if callable(reads) else None
        self._vocabularies = () if callable(reads) else tuple(reads)
        self._features = Features(self._vocabularies)

    @property
    def is_quick(self) -> bool:
        """Whether an answer takes less than some milliseconds."""
        return self._encode is None

    def say(self, text: str) -> Said:
        """Answer a request, of which `text` is what a user said."""
        logits, known = self._logits(text)
        return self.from_logits(logits, text, known)

    def from_logits(self, logits: Floats, text: str, known: float = 1.0) -> Said:
        """Answer by the sums of all heads; `known`: share of the request that says anything to it."""
        import numpy as np  # noqa: PLC0415 - an extra's

        raw = 1.0
        values: dict[str | None, Any] = {}
        for field in self.facts.fields:
            if isinstance(field, Copy):
                values[field.name], chance = field.copier.choose(text)
                raw *= chance
                continue
            mine = logits[field.start : field.start + len(field.values)]
            top = int(mine.argmax())
            raw *= 1.0 / float(np.exp(mine - mine[top]).sum())
            values[field.name] = field.values[top]
        strange = self.strangeness(logits) > self.facts.calibration.strange or known == 0.0
        whole = None in values
        content = str(values[None]) if whole else msgspec.json.encode(values).decode()
        return Said(content, 0.0 if strange else self.facts.calibration.chance(raw), strange)

    def strangeness(self, logits: Floats) -> float:
        """How unlike a request is to what was learned from: how low the best sum of some head is."""
        heads = [each for each in self.facts.fields if isinstance(each, Choice)]
        tops = [float(logits[each.start : each.start + len(each.values)].max()) for each in heads]
        return -min(tops, default=math.inf)

    def to_bytes(self) -> bytes:
        """Write it as a safetensors file: the same student gives the same bytes."""
        arrays: dict[str, NDArray[Any]] = {"weights": self._weights, "bias": self._bias}
        for kind, each in zip(KINDS, self._vocabularies, strict=False):
            arrays |= {f"{kind}.numbers": each.numbers, f"{kind}.rarity": each.rarity}
        return to_bytes(arrays, msgspec.json.encode(self.facts).decode())

    def _logits(self, text: str) -> tuple[Floats, float]:
        import numpy as np  # noqa: PLC0415 - an extra's

        if self._encode is not None:
            return np.asarray(self._encode(text) @ self._weights + self._bias, float), 1.0
        places, values = self._features.of(text)
        if not places:
            return np.asarray(self._bias, float), 0.0
        found = np.array(values, np.float32) @ self._weights[places] + self._bias
        return np.asarray(found, float), 1.0


def load(data: bytes, where: str, encoder: Callable[[str], Encode] | None = None) -> Student:
    """Read what `Student.to_bytes` wrote; `encoder`: gives the one of a digest. ConfigError where it is no student."""
    arrays, text = from_bytes(data, where)
    try:
        facts = msgspec.json.decode(text, type=Facts)
        weights, bias = arrays["weights"], arrays["bias"]
        known = [] if facts.encoder is not None else [_vocabulary(arrays, kind) for kind in KINDS]
    except (msgspec.DecodeError, KeyError) as error:
        raise ConfigError(f"{where} is no student: {error}") from None
    rows = sum(len(each.numbers) for each in known) if facts.encoder is None else len(weights)
    columns = sum(len(each.values) for each in facts.fields if isinstance(each, Choice))
    if weights.shape != (rows, columns) or bias.shape != (columns,) or facts.format != FORMAT:
        raise ConfigError(f"{where} is no student of this version")
    if facts.encoder is None:
        return Student(facts, weights, bias, known)
    if encoder is None:
        raise ConfigError(f"{where} stands on the encoder {facts.encoder}, which is not there")
    return Student(facts, weights, bias, encoder(facts.encoder))


def _vocabulary(arrays: Mapping[str, NDArray[Any]], kind: str) -> Vocabulary:
    return Vocabulary(arrays[f"{kind}.numbers"], arrays[f"{kind}.rarity"])


def digest_of(data: bytes) -> str:
    """Name a student by what it is."""
    return hashlib.sha256(data).hexdigest()[:16]


def read_by_student(messages: Sequence[Any]) -> str:
    """What a student reads of a request: what its user said. Instructions are the same each time."""
    return text_of([each for each in messages if isinstance(each, dict) and each.get("role") not in _INSTRUCTING])


_INSTRUCTING = ("system", "developer")
