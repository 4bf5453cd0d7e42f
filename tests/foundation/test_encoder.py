"""The encoder that numpy runs: vectors of length 1, words taken apart, folders that hold none."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("numpy", reason="students are served with numpy")

import numpy as np

from tests.tiny_bert import tiny_bert
from upstack.core.errors import ConfigError
from upstack.foundation.students.encoder import Encoder, encoder_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder."""
    return tiny_bert(tmp_path_factory.mktemp("encoder"))


def test_a_text_becomes_a_vector_of_length_one_and_the_same_one_the_same(folder: Path) -> None:
    """Case, accents and blanks make no difference where the vocabulary is without them; other words do."""
    encoder = Encoder(folder)
    one = encoder("belt slips at hall 7")
    assert one.shape == (64,)
    assert abs(float(np.linalg.norm(one)) - 1.0) < 1e-5
    assert (one == Encoder(folder)("belt slips at hall 7")).all()
    assert (one == encoder("  Bélt   SLIPS at hall 7 ")).all()
    assert float(one @ encoder("rope frayed")) < 0.999


def test_any_text_has_a_vector(folder: Path) -> None:
    """Empty, endless, of unknown words, of no words at all."""
    encoder = Encoder(folder)
    for text in ("", " ", "x" * 100_000, "belt " * 5_000, "请问", "\ud800", "\0", "🙂" * 300):
        assert np.isfinite(encoder(text)).all()


def test_a_folder_that_holds_no_such_encoder_says_what_is_missing(folder: Path, tmp_path: Path) -> None:
    """Nothing there, another architecture, weights of something else."""
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        Encoder(tmp_path)
    other = tiny_bert(tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text().replace('"bert"', '"xlm"'))
    with pytest.raises(ConfigError, match='"xlm" is not run here'):
        Encoder(other)
    broken = tiny_bert(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(ConfigError, match="not those of a BERT"):
        Encoder(broken)
    with pytest.raises(ConfigError, match="name its folder in loop"):
        encoder_of(None, "abc")
    with pytest.raises(ConfigError, match="stands on the encoder abc"):
        encoder_of(str(folder), "abc")
