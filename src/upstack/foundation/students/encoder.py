"""A sentence encoder of the BERT kind, run by numpy alone: a folder with config.json, vocab.txt, model.safetensors.

Takes some ten milliseconds for a sentence on one core, and as long as torch does. The vector is the mean over the
tokens, of length 1, as sentence-transformers pools. Devlin et al., BERT, NAACL 2019; Reimers and Gurevych,
Sentence-BERT, EMNLP 2019.
"""

from __future__ import annotations

import functools
import hashlib
import math
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from upstack.core.errors import ConfigError
from upstack.foundation.students.tensors import from_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_LONGEST_WORD = 100  # characters; a longer one is unknown
_MOST_TOKENS = 256
_REMEMBERED = 20_000  # words taken apart
_VECTORS = 10_000  # kept: 15 MB of 384 numbers each


class _Shape(msgspec.Struct, frozen=True):
    """What config.json says."""

    model_type: str
    hidden_size: int
    num_attention_heads: int
    num_hidden_layers: int
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"


class Encoder:
    """Turns texts into vectors. ConfigError where the folder holds no such encoder."""

    def __init__(self, folder: Path) -> None:
        self._shape = _read_shape(folder)
        self._tokens = _Tokens(folder)
        weights = folder / "model.safetensors"
        tensors, _ = from_bytes(_bytes(weights), str(weights))
        self._tensors = {name.removeprefix("bert."): array for name, array in tensors.items()}
        self.digest = _digest(folder)
        self._seen: dict[str, Floats] = {}
        try:
            self("x")
        except (KeyError, ValueError) as error:
            raise ConfigError(f"{folder}: its weights are not those of a BERT encoder: {error}") from None

    def __call__(self, text: str) -> Floats:
        """The vector of a text, of length 1. It is kept for a while: a request that is served may be learned from."""
        found = self._seen.get(text)
        if found is None:
            if len(self._seen) >= _VECTORS:
                self._seen.clear()
            found = self._seen[text] = self._encode(text)
        return found

    def _encode(self, text: str) -> Floats:
        import numpy as np  # noqa: PLC0415 - an extra's

        tensors, shape = self._tensors, self._shape
        ids = self._tokens.of(text)[: min(_MOST_TOKENS, shape.max_position_embeddings)]
        state = tensors["embeddings.word_embeddings.weight"][ids]
        state = state + tensors["embeddings.position_embeddings.weight"][: len(ids)]
        state = self._normal(state + tensors["embeddings.token_type_embeddings.weight"][0], "embeddings")
        for layer in range(shape.num_hidden_layers):
            state = self._layer(state, f"encoder.layer.{layer}")
        mean = state.mean(axis=0)
        vector: Floats = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)
        return vector

    def _layer(self, state: Floats, at: str) -> Floats:
        import numpy as np  # noqa: PLC0415 - an extra's

        heads = self._shape.num_attention_heads
        size = self._shape.hidden_size // heads

        def split(name: str) -> Floats:
            found = self._linear(state, f"{at}.attention.self.{name}")
            return found.reshape(len(state), heads, size).transpose(1, 0, 2)

        query, key, value = split("query"), split("key"), split("value")
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(size)
        chances = np.exp(scores - scores.max(axis=-1, keepdims=True))
        chances /= chances.sum(axis=-1, keepdims=True)
        seen = (chances @ value).transpose(1, 0, 2).reshape(len(state), -1)
        attended = self._linear(seen, f"{at}.attention.output.dense")
        state = self._normal(state + attended, f"{at}.attention.output")
        inner = _gelu(self._linear(state, f"{at}.intermediate.dense"))
        return self._normal(state + self._linear(inner, f"{at}.output.dense"), f"{at}.output")

    def _linear(self, state: Floats, name: str) -> Floats:
        found: Floats = state @ self._tensors[f"{name}.weight"].T + self._tensors[f"{name}.bias"]
        return found

    def _normal(self, state: Floats, name: str) -> Floats:
        import numpy as np  # noqa: PLC0415 - an extra's

        centred = state - state.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self._shape.layer_norm_eps)
        gain, shift = self._tensors[f"{name}.LayerNorm.weight"], self._tensors[f"{name}.LayerNorm.bias"]
        found: Floats = centred / scale * gain + shift
        return found


def encoder_of(folder: str | None, digest: str) -> Encoder:
    """The encoder that a student stands on. ConfigError where it is not the configured one."""
    if folder is None:
        raise ConfigError(f"it stands on the encoder {digest}: name its folder in loop.encoder")
    found = made(folder)
    if found.digest != digest:
        raise ConfigError(f"it stands on the encoder {digest}, and {folder} holds {found.digest}")
    return found


@functools.lru_cache(2)
def made(folder: str) -> Encoder:
    """The encoder in a folder, read once."""
    return Encoder(Path(folder))


class _Tokens:
    """WordPiece: words are taken apart into the longest pieces that the vocabulary has."""

    def __init__(self, folder: Path) -> None:
        try:
            names = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{folder}/vocab.txt cannot be read: {error}") from None
        self._ids = {name: at for at, name in enumerate(names)}
        missing = [name for name in ("[CLS]", "[SEP]", "[UNK]") if name not in self._ids]
        if missing:
            raise ConfigError(f"{folder}/vocab.txt has no {missing[0]}")
        self._folds = _folds_case(folder)
        self._seen: dict[str, list[int]] = {}

    def of(self, text: str) -> list[int]:
        """The numbers of a text's tokens, between those that begin and end it."""
        found = [self._ids["[CLS]"]]
        for word in self._words(text[: _MOST_TOKENS * 20]):
            pieces = self._seen.get(word)
            if pieces is None:
                if len(self._seen) >= _REMEMBERED:
                    self._seen.clear()
                pieces = self._seen[word] = self._pieces(word)
            found += pieces
        return [*found[: _MOST_TOKENS - 1], self._ids["[SEP]"]]

    def _words(self, text: str) -> list[str]:
        if self._folds:
            decomposed = unicodedata.normalize("NFD", text.lower())
            text = "".join(each for each in decomposed if unicodedata.category(each) != "Mn")
        spaced = []
        for each in text:
            if each.isspace():
                spaced.append(" ")
            elif _stands_alone(each):
                spaced.append(f" {each} ")
            elif unicodedata.category(each) not in {"Cc", "Cf"}:
                spaced.append(each)
        return "".join(spaced).split()

    def _pieces(self, word: str) -> list[int]:
        if len(word) > _LONGEST_WORD:
            return [self._ids["[UNK]"]]
        found = []
        start = 0
        while start < len(word):
            end = len(word)
            while end > start and (("##" if start else "") + word[start:end]) not in self._ids:
                end -= 1
            if end == start:
                return [self._ids["[UNK]"]]
            found.append(self._ids[("##" if start else "") + word[start:end]])
            start = end
        return found


def _stands_alone(character: str) -> bool:
    """Whether it is a word of its own: punctuation, and what is written without blanks."""
    code = ord(character)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    if 0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x2FA1F:
        return True
    return unicodedata.category(character).startswith("P")


def _gelu(state: Floats) -> Floats:
    """x times the normal distribution's share below x: Abramowitz and Stegun 7.1.26, to 1.5e-7."""
    import numpy as np  # noqa: PLC0415 - an extra's

    size = np.abs(state) * np.float32(math.sqrt(0.5))
    t = 1.0 / (1.0 + np.float32(0.3275911) * size)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    error = np.sign(state) * (1.0 - series * np.exp(-size * size))
    found: Floats = (0.5 * state * (1.0 + error)).astype(np.float32)
    return found


def _read_shape(folder: Path) -> _Shape:
    try:
        shape = msgspec.json.decode((folder / "config.json").read_bytes(), type=_Shape)
    except OSError as error:
        raise ConfigError(f"{folder}/config.json cannot be read: {error.strerror or error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{folder}/config.json describes no encoder: {error}") from None
    if shape.model_type != "bert" or shape.hidden_act != "gelu":
        raise ConfigError(f'{folder}: "{shape.model_type}" is not run here, "bert" is; serve it, and give its URL')
    return shape


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None


def _folds_case(folder: Path) -> bool:
    try:
        said: dict[str, Any] = msgspec.json.decode((folder / "tokenizer_config.json").read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return True
    return bool(said.get("do_lower_case", True))


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in ("config.json", "vocab.txt", "model.safetensors"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]
