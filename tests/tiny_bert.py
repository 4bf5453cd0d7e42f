"""A sentence encoder as tests make it up: the smallest BERT there can be, with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.reports import reports
from upstack.foundation.students.tensors import to_bytes

_WIDTH, _HEADS, _LAYERS, _INNER, _LONGEST = 64, 4, 2, 96, 64


def tiny_bert(folder: Path, seed: int = 0) -> Path:
    """Write one that knows the words of fault reports."""
    folder.mkdir(parents=True, exist_ok=True)
    words = sorted({word for row in reports(200) for word in row.messages[1]["content"].split() if word.isalpha()})
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words, *(str(digit) for digit in range(10))]
    names += [f"##{digit}" for digit in range(10)]
    (folder / "vocab.txt").write_text("\n".join(names) + "\n")
    shape = {"model_type": "bert", "hidden_size": _WIDTH, "num_attention_heads": _HEADS, "hidden_act": "gelu"}
    shape |= {"num_hidden_layers": _LAYERS, "max_position_embeddings": _LONGEST}
    (folder / "config.json").write_text(json.dumps(shape))
    rng = np.random.default_rng(seed)
    sizes: dict[str, tuple[int, ...]] = {"embeddings.word_embeddings.weight": (len(names), _WIDTH)}
    sizes |= {"embeddings.position_embeddings.weight": (_LONGEST, _WIDTH)}
    sizes |= {"embeddings.token_type_embeddings.weight": (2, _WIDTH)}
    normed = ["embeddings"]
    for layer in range(_LAYERS):
        at = f"encoder.layer.{layer}"
        dense = {f"{at}.attention.self.{name}": (_WIDTH, _WIDTH) for name in ("query", "key", "value")}
        dense |= {f"{at}.attention.output.dense": (_WIDTH, _WIDTH), f"{at}.intermediate.dense": (_INNER, _WIDTH)}
        dense |= {f"{at}.output.dense": (_WIDTH, _INNER)}
        for name, size in dense.items():
            sizes |= {f"{name}.weight": size, f"{name}.bias": size[:1]}
        normed += [f"{at}.attention.output", f"{at}.output"]
    tensors = {name: rng.normal(0, 0.2, size).astype(np.float32) for name, size in sizes.items()}
    tensors["embeddings.position_embeddings.weight"] *= 0.1
    for name in normed:
        tensors |= {f"{name}.LayerNorm.weight": np.ones(_WIDTH, np.float32)}
        tensors |= {f"{name}.LayerNorm.bias": np.zeros(_WIDTH, np.float32)}
    (folder / "model.safetensors").write_bytes(to_bytes(tensors, ""))
    return folder
