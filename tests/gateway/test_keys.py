"""Virtual keys: who is served, who sees what, and that no key ever shows."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests import plain
from tests.gateway.serving import Serving, chat, provider
from upstack.application.gateway.auth import Keys, new_key
from upstack.core.config import KeyConfig
from upstack.core.errors import RequestError
from upstack.testing import EchoProvider

KEYS = {name: new_key() for name in ("app", "other", "narrow", "reviewer", "boss")}
TABLES = "".join(
    f'[keys.{name}]\nhash = "{KEYS[name][1]}"\n{extra}\n'
    for name, extra in {
        "app": 'team = "dispatch"',
        "other": 'capture = "none"',
        "narrow": 'tasks = ["triage"]',
        "reviewer": 'role = "feedback"',
        "boss": 'role = "admin"',
    }.items()
)


def bearer(name: str) -> dict[str, str]:
    """The header that the official client sends."""
    return {"authorization": f"Bearer {KEYS[name][0]}"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A gateway with keys of every kind."""
    with EchoProvider() as fake:
        config = TABLES + '[tasks.triage]\ncandidates = ["fake/m"]\n' + provider("fake", fake.base_url)
        with Serving(tmp_path_factory.mktemp("gateway"), config) as serving:
            yield serving


def error(answer: httpx2.Response) -> tuple[int, str]:
    """The status and the code of a refusal."""
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize(
    "headers",
    [
        lambda key: {"authorization": f"Bearer {key}"},
        lambda key: {"authorization": f"bearer  {key}"},
        lambda key: {"x-api-key": key},
        lambda key: {"api-key": key},
        lambda key: {"authorization": f"Bearer {key}", "host": "gateway.example", "origin": "https://app.example"},
    ],
)
def test_a_key_is_taken_as_clients_send_it(gateway: Serving, headers: Any) -> None:
    """OpenAI's, Anthropic's and Azure's header; with a key neither Host nor Origin matters."""
    answer = gateway.post(chat("task/triage"), **headers(KEYS["app"][0]))
    assert answer.status_code == 200
    receipt = plain.get(f"{gateway.url}/v1/receipts/{answer.headers['x-upstack-receipt']}", headers=bearer("app"))
    assert (receipt.json()["key"], receipt.json()["team"]) == ("app", "dispatch")
    assert "Asked by the key app of the team dispatch." in receipt.json()["words"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"authorization": ""}, "missing_api_key"),
        ({"authorization": "Basic dXNlcjpwYXNz"}, "missing_api_key"),
        ({"authorization": "Bearer"}, "invalid_api_key"),
        ({"authorization": f"Bearer {KEYS['app'][1]}"}, "invalid_api_key"),
        ({"authorization": f"Bearer {KEYS['app'][0]}x"}, "invalid_api_key"),
        ({"authorization": f"Bearer {'k' * 20_000}"}, "invalid_api_key"),
        ({"x-api-key": "sk-upstack-"}, "invalid_api_key"),
    ],
)
def test_who_has_no_key_gets_nowhere(gateway: Serving, headers: dict[str, str], code: str) -> None:
    """Not to a model, a list, a receipt or the metrics; whether the process lives, everybody may ask."""
    assert error(gateway.post(chat("task/triage"), **headers)) == (401, code)
    for path in ("/v1/models", "/v1/receipts/rcpt_1", "/metrics", "/admin/health", "/nowhere"):
        assert error(plain.get(gateway.url + path, headers=headers)) == (401, code)
    assert plain.get(f"{gateway.url}/healthz", headers=headers).status_code == 200
    assert plain.get(f"{gateway.url}/readyz", headers=headers).status_code == 200


def test_a_key_without_a_place_is_refused_before_its_body_is_read(gateway: Serving) -> None:
    """30 MB that nobody may send are not taken: whoever waits for leave hears it at once."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as caller:
        caller.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"expect: 100-continue\r\ncontent-length: 30000000\r\n\r\n"
        )
        assert caller.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_roles_keep_to_their_surfaces(gateway: Serving) -> None:
    """The admin's key asks no models, the others see no metrics, and only an admin reloads."""
    for name in ("reviewer", "boss"):
        assert error(gateway.post(chat("task/triage"), **bearer(name))) == (403, "key_not_allowed")
    for path in ("/metrics", "/admin/health"):
        for name in ("app", "reviewer"):
            assert error(plain.get(gateway.url + path, headers=bearer(name))) == (403, "key_not_allowed")
        assert plain.get(gateway.url + path, headers=bearer("boss")).status_code == 200
    reload = {"x-upstack-admin": "1"}
    refused = plain.post(f"{gateway.url}/admin/reload", headers=reload | bearer("app"))
    assert error(refused) == (403, "key_not_allowed")
    assert plain.post(f"{gateway.url}/admin/reload", headers=reload | bearer("boss")).status_code == 200


def test_a_narrow_key_asks_for_its_tasks_alone(gateway: Serving) -> None:
    """It sees no other names, and a route that nobody has named yet is none of its own."""
    assert gateway.post(chat("task/triage"), **bearer("narrow")).status_code == 200
    for model in ("fake/m", "fake/never-seen", "task/other"):
        assert error(gateway.post(chat(model), **bearer("narrow"))) == (403, "model_not_allowed")
    listed = plain.get(f"{gateway.url}/v1/models", headers=bearer("narrow")).json()["data"]
    assert [row["id"] for row in listed] == ["task/triage"]
    assert len(plain.get(f"{gateway.url}/v1/models", headers=bearer("app")).json()["data"]) > 1


def test_a_receipt_is_for_the_key_that_asked(gateway: Serving) -> None:
    """For another it does not exist; reviewers and admins see all."""
    mine = gateway.post(chat("task/triage"), **bearer("app")).headers["x-upstack-receipt"]
    url = f"{gateway.url}/v1/receipts/{mine}"
    assert plain.get(url, headers=bearer("app")).status_code == 200
    assert error(plain.get(url, headers=bearer("other"))) == (404, "receipt_not_found")
    for name in ("reviewer", "boss"):
        assert plain.get(url, headers=bearer(name)).status_code == 200


def test_a_keys_capture_keeps_less_never_more(gateway: Serving) -> None:
    """What it asked and was answered is not in the ledger where it says so."""
    asked = gateway.post(chat("task/triage", "a secret of the plant"), **bearer("other"))
    receipt = plain.get(
        f"{gateway.url}/v1/receipts/{asked.headers['x-upstack-receipt']}", headers=bearer("other")
    ).json()
    assert (receipt["capture"], receipt["request"], receipt["answer"]) == ("none", None, None)


def test_episode_and_subject_come_from_headers_or_metadata(gateway: Serving) -> None:
    """Headers win; what is no name is refused, and a metadata of another shape is the provider's to judge."""
    metadata = {"upstack_episode": "shift 3", "upstack_subject": "driver 17", "more": "x"}
    cases: list[tuple[dict[str, str], Any, tuple[str | None, str | None]]] = [
        ({"x-upstack-episode": "tour 9"}, None, ("tour 9", None)),
        ({}, metadata, ("shift 3", "driver 17")),
        ({"x-upstack-subject": "driver 18"}, metadata, ("shift 3", "driver 18")),
        ({}, {"upstack_episode": 7}, (None, None)),
        ({}, "text", (None, None)),
    ]
    for headers, told, expected in cases:
        members = {} if told is None else {"metadata": told}
        asked = gateway.post(chat("task/triage", **members), **headers, **bearer("app"))
        assert asked.status_code == 200
        where = f"{gateway.url}/v1/receipts/{asked.headers['x-upstack-receipt']}"
        receipt = plain.get(where, headers=bearer("app")).json()
        assert (receipt["episode"], receipt["subject"]) == expected
    for wrong in ("x" * 201, "", "a\nb"):
        answer = gateway.post(chat("task/triage", metadata={"upstack_subject": wrong}), **bearer("app"))
        assert error(answer) == (400, "invalid_name")


def test_keys_come_and_go_with_a_reload(tmp_path: Path) -> None:
    """A key that was taken out is refused within seconds, one that was put in is served."""
    with EchoProvider() as fake:
        rest = provider("fake", fake.base_url)
        tables = {name: f'[keys.{name}]\nhash = "{KEYS[name][1]}"\n' for name in ("app", "other")}
        with Serving(tmp_path, tables["app"] + rest) as serving:
            assert serving.post(chat("fake/m"), **bearer("app")).status_code == 200
            assert serving.post(chat("fake/m"), **bearer("other")).status_code == 401
            serving.config.write_text(tables["other"] + rest)
            deadline = time.monotonic() + 10
            while serving.post(chat("fake/m"), **bearer("other")).status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert serving.post(chat("fake/m"), **bearer("app")).status_code == 401


def test_beyond_loopback_only_with_keys(tmp_path: Path) -> None:
    """Without keys everybody who reaches the port could spend: that is refused, and so is taking the last key away."""
    bare = '[server]\nhost = "0.0.0.0"\n'
    with pytest.raises(AssertionError, match="without keys only loopback"):
        Serving(tmp_path, bare).start()
    with Serving(tmp_path, bare + TABLES.replace('tasks = ["triage"]', "")) as serving:
        serving.config.write_text(bare)
        refused = plain.post(f"{serving.url}/admin/reload", headers={"x-upstack-admin": "1"} | bearer("boss"))
        assert (refused.status_code, "without keys" in refused.json()["error"]["message"]) == (422, True)
        assert plain.get(f"{serving.url}/v1/models").status_code == 401


def test_no_key_and_no_hash_shows_anywhere(gateway: Serving) -> None:
    """Not in the log, the ledger, the receipts, the metrics or an error."""
    gateway.post(chat("task/triage"), authorization=f"Bearer {KEYS['app'][0]}x")
    seen = gateway.log.encode() + b"".join(file.read_bytes() for file in gateway.folder.glob("upstack.db*"))
    for path in ("/metrics", "/admin/health", "/v1/models"):
        seen += plain.get(gateway.url + path, headers=bearer("boss")).content
    for key, digest in KEYS.values():
        assert key.encode() not in seen
        assert digest.removeprefix("sha256:").encode() not in seen


def test_a_rotated_key_is_good_until_its_time_is_up() -> None:
    """Old and new stand for the same caller; then the old is unknown, and at the end the new has expired."""
    (old, old_hash), (new, new_hash) = new_key(), new_key()
    end = datetime(2027, 1, 1, tzinfo=UTC)
    until = end - timedelta(days=10)
    keys = Keys({"app": KeyConfig(new_hash, expires=end, old_hash=old_hash, old_until=until)})

    def name(key: str, moment: datetime) -> str:
        try:
            return keys.caller({b"authorization": b"Bearer " + key.encode()}, moment.timestamp()).name
        except RequestError as refusal:
            return refusal.code

    before, after = until - timedelta(seconds=1), until
    assert [name(old, before), name(new, before), name(old, after), name(new, after), name(new, end)] == [
        "app",
        "app",
        "expired_api_key",
        "app",
        "expired_api_key",
    ]
