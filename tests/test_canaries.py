"""The search for secrets finds them."""

from __future__ import annotations

from pathlib import Path

from tests.canaries import CANARY, files_with_secrets
from upstack.application.gateway.auth import new_key


def test_a_secret_is_found_wherever_it_was_written(tmp_path: Path) -> None:
    """In a log, in the middle of a database, in a folder below; not where it stands on purpose."""
    key, digest = new_key()
    below = tmp_path / "below"
    below.mkdir()
    (tmp_path / "plain.log").write_text(f"nothing {digest} to see")
    (tmp_path / "empty").touch()
    (tmp_path / "meant.secret").write_text(CANARY)
    assert files_with_secrets(tmp_path) == []
    written = [below / "key.db", tmp_path / "serve.log"]
    written[0].write_bytes(b"\0" * 5000 + key.encode() + b"\0")
    written[1].write_text(f"upstack: {CANARY}")
    try:
        assert files_with_secrets(tmp_path) == written
    finally:
        for path in written:
            path.unlink()
