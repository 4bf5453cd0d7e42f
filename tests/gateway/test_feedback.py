"""`POST /v1/feedback`: what became of an answer, told once, by who may, and nothing else believed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx2
import pytest

from tests import plain
from tests.gateway.serving import Serving, chat, provider
from tests.gateway.test_keys import TABLES, bearer, error
from upstack.core.store.verify import verify
from upstack.testing import EchoProvider


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A gateway with keys of every kind, and a task whose outcomes take a week."""
    with EchoProvider() as fake:
        task = '[tasks.triage]\ncandidates = ["fake/m"]\nmaturity_days = 7\n'
        with Serving(tmp_path_factory.mktemp("gateway"), TABLES + task + provider("fake", fake.base_url)) as serving:
            yield serving


def ask(gateway: Serving, key: str = "app", **headers: str) -> str:
    """A receipt's id."""
    answer = gateway.post(chat("task/triage"), **bearer(key), **headers)
    assert answer.status_code == 200
    return str(answer.headers["x-upstack-receipt"])


def tell(gateway: Serving, key: str, **said: Any) -> httpx2.Response:
    """Tell an outcome."""
    return plain.post(f"{gateway.url}/v1/feedback", json=said, headers=bearer(key), timeout=30)


def shown(gateway: Serving, receipt: str, key: str = "app") -> Any:
    """The receipt as the gateway explains it."""
    return plain.get(f"{gateway.url}/v1/receipts/{receipt}", headers=bearer(key)).json()


def test_an_outcome_is_told_shown_and_superseded(gateway: Serving) -> None:
    """Nothing told is not bad; a later outcome counts, the history stays, and a withdrawal makes it unknown again."""
    receipt = ask(gateway)
    assert any("not yet known, it may come until" in words for words in shown(gateway, receipt)["words"])
    first = tell(gateway, "app", receipt=receipt, value=True)
    assert first.status_code == 201
    assert first.json() == {"id": first.json()["id"], "receipt": receipt, "name": "outcome", "superseded": None}
    second = tell(gateway, "reviewer", receipt=receipt, value=0.25, comment="too long", source="audit")
    assert second.json()["superseded"] == first.json()["id"]
    whole = shown(gateway, receipt)
    assert any("0.25 (of 0 to 1), told by audit" in words for words in whole["words"])
    assert "Latest comment: too long" in whole["words"]
    assert [each["value"] for each in whole["outcomes"]] == [0.25, True]
    assert tell(gateway, "app", receipt=receipt, withdraw=True).status_code == 201
    assert any("withdrawn, told by app" in words for words in shown(gateway, receipt)["words"])
    assert len(shown(gateway, receipt)["outcomes"]) == 3
    assert tell(gateway, "app", receipt=receipt, demonstration={"answer": 42}).json()["superseded"] is None
    assert 'Latest demonstration: {"answer":42}' in shown(gateway, receipt)["words"]


def test_told_again_it_is_there_once(gateway: Serving) -> None:
    """Under the same idempotency key, from the body or the header; another body is a conflict."""
    receipt = ask(gateway)
    first = tell(gateway, "app", receipt=receipt, value=True, comment="x", idempotency_key="case 7")
    again = tell(gateway, "app", receipt=receipt, value=True, comment="x", idempotency_key="case 7")
    assert (again.status_code, again.json()["id"], again.json()["duplicate"]) == (200, first.json()["id"], True)
    for other in ({"value": False}, {"value": 1.0}, {"value": True, "comment": "y"}, {"value": True, "name": "tone"}):
        answer = tell(gateway, "app", receipt=receipt, **{"comment": "x", **other}, idempotency_key="case 7")
        assert error(answer) == (409, "idempotency_key_reused")
    assert tell(gateway, "reviewer", receipt=receipt, value=True, idempotency_key="case 7").status_code == 201
    headers = bearer("app") | {"idempotency-key": "case 8"}
    body = {"receipt": receipt, "value": 0.5}
    with ThreadPoolExecutor(8) as pool:
        posts = [
            pool.submit(httpx2.post, f"{gateway.url}/v1/feedback", json=body, headers=headers, timeout=30)
            for _ in range(16)
        ]
        statuses = sorted(post.result().status_code for post in posts)
    assert statuses == [200] * 15 + [201]
    assert len(shown(gateway, receipt)["outcomes"]) == 3


def test_an_episode_is_told_of_by_its_key(gateway: Serving) -> None:
    """It counts for its requests of that key; told by a reviewer, for all of them."""
    mine, others = (ask(gateway, key, **{"x-upstack-episode": "trip 9"}) for key in ("app", "narrow"))
    assert tell(gateway, "app", episode="trip 9", value=True).status_code == 201
    assert [each["value"] for each in shown(gateway, mine)["outcomes"]] == [True]
    assert shown(gateway, others, "narrow")["outcomes"] == []
    assert tell(gateway, "reviewer", episode="trip 9", value=False).status_code == 201
    assert [each["value"] for each in shown(gateway, others, "narrow")["outcomes"]] == [False]
    assert error(tell(gateway, "other", episode="trip 9", value=True)) == (404, "episode_not_found")


def test_foreign_and_unknown_receipts_are_not_told_of(gateway: Serving) -> None:
    """One cannot find out that there is another's."""
    receipt = ask(gateway)
    for wanted in (receipt, "rcpt_unknown", "x" * 5000, ""):
        assert error(tell(gateway, "narrow", receipt=wanted, value=True)) == (404, "receipt_not_found")
    assert plain.post(f"{gateway.url}/v1/feedback", json={"receipt": receipt, "value": True}).status_code == 401
    assert shown(gateway, receipt)["outcomes"] == []


def test_nothing_is_kept_where_no_content_is(gateway: Serving) -> None:
    """Under capture = "none" a value is taken, words are not."""
    receipt = ask(gateway, "other")
    assert error(tell(gateway, "other", receipt=receipt, value=True, comment="x")) == (409, "content_not_kept")
    assert tell(gateway, "other", receipt=receipt, value=True).status_code == 201


@pytest.mark.parametrize("demonstration", ["1" * 5000, "1e999", '{"id": 123456789012345678901234567890}', '"\u00e9"'])
def test_a_demonstration_is_kept_as_it_stands(gateway: Serving, demonstration: str) -> None:
    """Whatever JSON it is, numbers that no float holds included; a text without its quotes."""
    receipt = ask(gateway)
    body = f'{{"receipt": "{receipt}", "demonstration": {demonstration}}}'.encode()
    headers = bearer("app") | {"content-type": "application/json"}
    assert plain.post(f"{gateway.url}/v1/feedback", content=body, headers=headers).status_code == 201
    assert gateway.rows("SELECT demonstration FROM outcome_contents ORDER BY outcome_seq DESC LIMIT 1") == [
        (demonstration.strip('"'),)
    ]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"", 400, "JSON"),
        (b"[]", 400, "object"),
        (b"{", 400, "JSON"),
        (b'{"receipt": "R"}', 400, "Tell a"),
        (b'{"value": true}', 400, "receipt"),
        (b'{"receipt": "R", "episode": "e", "value": true}', 400, "one of them"),
        (b'{"receipt": "R", "value": 1.5}', 400, "0 to 1"),
        (b'{"receipt": "R", "value": -1}', 400, "0 to 1"),
        (b'{"receipt": "R", "value": NaN}', 400, "JSON"),
        (b'{"receipt": "R", "value": 1e999}', 400, ""),
        (b'{"receipt": "R", "value": "good"}', 400, "value"),
        (b'{"receipt": "R", "value": true, "withdraw": true}', 400, "withdraw"),
        (b'{"receipt": "R", "value": true, "vale": 1}', 400, "vale"),
        (b'{"receipt": 7, "value": true}', 400, "receipt"),
        (b'{"receipt": "R", "value": true, "name": "a b"}', 400, "name"),
        (b'{"receipt": "R", "value": true, "source": ""}', 400, "source"),
        (b'{"receipt": "R", "value": true, "idempotency_key": "\\u0000"}', 400, "idempotency_key"),
        (b'{"receipt": "R", "value": true, "observed_at": "2999-01-01T00:00:00Z"}', 400, "observed_at"),
        (b'{"receipt": "R", "value": true, "observed_at": "2026-01-01T00:00:00"}', 400, "time zone"),
        (b'{"receipt": "R", "value": true, "observed_at": -1e308}', 400, "observed_at"),
        (b'{"receipt": "R", "value": true, "observed_at": 1' + b"0" * 400 + b"}", 400, ""),
        (b'{"episode": "\\u0000", "value": true}', 400, "episode"),
        (b'{"receipt": "R", "comment": "\xff"}', 400, "UTF-8"),
        (b'{"receipt": "R", "demonstration": "\xff"}', 400, "UTF-8"),
        (b'{"receipt": "R", "demonstration": {"a": "\xff"}}', 400, "UTF-8"),
        (b'{"receipt": "R", "demonstration": "\\ud800"}', 400, "JSON"),
        (b'{"receipt": "R", "demonstration": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "nested"),
        (b'{"receipt": "R", "comment": "' + b"x" * 1024 * 1024 + b'"}', 413, "above"),
    ],
)
def test_what_is_no_outcome_is_named(gateway: Serving, body: bytes, status: int, word: str) -> None:
    """The member at fault is named, and nothing is recorded."""
    receipt = ask(gateway)
    headers = bearer("app") | {"content-type": "application/json"}
    body = body.replace(b'"R"', f'"{receipt}"'.encode())
    answer = plain.post(f"{gateway.url}/v1/feedback", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert word in answer.json()["error"]["message"]
    assert shown(gateway, receipt)["outcomes"] == []


def test_fifty_megabytes_are_not_read(gateway: Serving) -> None:
    """A huge comment is refused by its announced length, and one sent in pieces when it is too much."""
    receipt = ask(gateway)

    def pieces() -> Iterator[bytes]:
        yield b'{"receipt": "' + receipt.encode() + b'", "comment": "'
        for _ in range(50):
            yield b"x" * 1024 * 1024

    headers = bearer("app") | {"content-type": "application/json"}
    for content in (b"".join(pieces()), pieces()):
        try:
            answer = plain.post(f"{gateway.url}/v1/feedback", content=content, headers=headers, timeout=30)
        except httpx2.TransportError:  # the connection was closed over what nobody reads
            continue
        assert error(answer) == (413, "body_too_large")
    assert shown(gateway, receipt)["outcomes"] == []
    assert tell(gateway, "app", receipt=receipt, value=True).status_code == 201


def test_a_flood_from_one_source_ends(gateway: Serving) -> None:
    """A key tells a thousand outcomes of one receipt and no more; others are still heard, and the chain is whole."""
    receipt = ask(gateway)
    statuses: list[int] = []

    def flood() -> None:
        with plain.client(headers=bearer("app"), timeout=30) as http:
            for _ in range(260):
                body = {"receipt": receipt, "value": 0.5}
                statuses.append(http.post(f"{gateway.url}/v1/feedback", json=body).status_code)

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {201, 429}
    assert 1000 <= statuses.count(201) < 1010  # of those at once each may be the thousandth
    assert tell(gateway, "reviewer", receipt=receipt, value=True).status_code == 201
    assert verify(str(gateway.ledger)).found == 0


def test_in_any_browser_of_databases_it_reads_naturally(gateway: Serving) -> None:
    """Comments and demonstrations are text, times are ISO 8601."""
    receipt = ask(gateway)
    assert tell(gateway, "app", receipt=receipt, value=True, comment="übel", demonstration="besser").status_code == 201
    with closing(sqlite3.connect(gateway.ledger)) as database:
        row = database.execute(
            "SELECT success, comment, demonstration, created_at"
            " FROM outcomes JOIN outcome_contents ON outcome_seq = seq WHERE receipt = ?",
            (receipt,),
        ).fetchone()
    assert row[:3] == (1, "übel", "besser")
    assert row[3].endswith("Z")
