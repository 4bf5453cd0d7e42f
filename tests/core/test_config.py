"""The configuration: what wins, what is refused and in which words, and that no secret is ever said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from upstack.core.config import RANGES, Config, ServerConfig, load_config, resolve_secret
from upstack.core.errors import ConfigError

WHOLE = """
[server]
port = 5000
receipts = "best-effort"
drain = 1
[providers.acme]
base_url = "http://127.0.0.1:9/v1"
api_keys = ["env:ONE", "file:/run/secrets/two"]
[providers.acme.timeouts]
connect = 2
[routes.cheap]
model = "acme/small"
residency = "onsite"
[tasks.sort]
candidates = ["cheap"]
reference = "acme/large"
capture = "hash"
[prices."acme/small"]
input = 0.1
output = 1
"""


def loaded(folder: Path, text: str | bytes, **environ: str) -> Config:
    """What this file and environment come to."""
    path = folder / "upstack.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path, environ)


def refused(folder: Path, text: str | bytes, **environ: str) -> str:
    """Why they are refused."""
    with pytest.raises(ConfigError) as raised:
        loaded(folder, text, **environ)
    return raised.value.message


def test_nothing_at_all_is_a_configuration() -> None:
    """Without a file and an environment there are the defaults, on loopback and with durable receipts."""
    assert load_config(None, {}) == Config()
    assert (Config().server.host, Config().server.receipts) == ("127.0.0.1", "required")


def test_every_table_is_read(tmp_path: Path) -> None:
    """What stands in the file is there; what does not has its default; a whole number will do for a number."""
    config = loaded(tmp_path, WHOLE)
    assert (config.server.port, config.server.receipts, config.server.drain) == (5000, "best-effort", 1.0)
    assert config.server.keep_alive == ServerConfig().keep_alive
    assert config.providers["acme"].api_keys == ("env:ONE", "file:/run/secrets/two")
    assert (config.providers["acme"].timeouts.connect, config.providers["acme"].timeouts.total) == (2.0, 900.0)
    assert (config.routes["cheap"].model, config.routes["cheap"].residency) == ("acme/small", "onsite")
    assert (config.tasks["sort"].candidates, config.tasks["sort"].reference) == (("cheap",), "acme/large")
    assert (config.tasks["sort"].strategy, config.tasks["sort"].capture) == ("fallback", "hash")
    assert (config.prices["acme/small"].input, config.prices["acme/small"].cached_input) == (0.1, None)


def test_the_example_of_the_readme_is_a_configuration(tmp_path: Path) -> None:
    """It can be copied as it stands."""
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    config = loaded(tmp_path, readme.partition("```toml\n")[2].partition("```")[0])
    assert (list(config.tasks), list(config.prices)) == (["triage"], ["deepseek/deepseek-chat"])


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    """Key by key, each read as its type; variables that name no key are somebody else's."""
    environ = {"UPSTACK_SERVER_PORT": "6000", "UPSTACK_SERVER_DRAIN": "0.5", "UPSTACK_MODEL": "x", "PORT": "7"}
    server = loaded(tmp_path, WHOLE, **environ).server
    assert (server.port, server.drain, server.receipts) == (6000, 0.5, "best-effort")
    assert load_config(None, environ).server.port == 6000


CERTIFIED = "[tasks.t]\nreference = 'a/b'\ncandidates = ['a/c']"
GRADED = f"{CERTIFIED}\nstrategy = 'auto'\ngrader = 'exact'"

UNKNOWN = [
    ("[server]\nprot = 1", "server.prot", "`port`", "ledger_queue_bytes"),
    ("[sever]\nport = 1", "sever", "`server`", "providers"),
    ("[providers.acme]\nbase_ulr = 'x'", "providers.acme.base_ulr", "`base_url`", "client_cert"),
    ("[providers.acme.timeouts]\nconect = 1", "providers.acme.timeouts.conect", "`connect`", "first_byte"),
    ("[routes.a]\nmodel = 'a/b'\nmodle = 'a/b'", "routes.a.modle", "`model`", "residency"),
    ("[tasks.ok]\nreference = 'a/b'\n[tasks.t]\nreferense = 'a/b'", "tasks.t.referense", "`reference`", "strategy"),
    ('[prices."a/b"]\ninput = 1\noutput = 1\noutptu = 1', "prices.a/b.outptu", "`output`", "cached_input"),
]


@pytest.mark.parametrize(("text", "key", "near", "allowed"), UNKNOWN, ids=[row[1] for row in UNKNOWN])
def test_an_unknown_key_is_named_with_what_was_meant(
    tmp_path: Path, text: str, key: str, near: str, allowed: str
) -> None:
    """In every table: the file, the key, the nearest one there is, and all that are allowed."""
    said = refused(tmp_path, text)
    assert said.startswith(f"{tmp_path}/upstack.toml: unknown key `{key}`")
    assert f"did you mean {near}?" in said
    assert allowed in said.partition("Allowed here: ")[2].split(", ")


WRONG = [
    ("[server]\nport = '4000'", "server.port: expected int, got str"),
    ("[server]\nretries = 2.0", "server.retries: expected int, got float"),
    ("[server]\ndrain = true", "server.drain: expected float, got bool"),
    (
        "[server]\nreceipts = 'maybe'",
        "server.receipts: invalid enum value 'maybe'. Allowed: required, best-effort, off",
    ),
    ("[server]\nledger = 'a\\u0000b'".replace("'", '"'), "a text holds the character NUL"),
    ("server = 1", "server: expected table, got int"),
    ("[providers]\nacme = 1", "providers.acme: expected table, got int"),
    ("[providers.acme]\napi_keys = 'env:ONE'", "providers.acme.api_keys: expected array, got str"),
    ("[providers.acme.timeouts]\nconnect = 'soon'", "providers.acme.timeouts.connect: expected float, got str"),
    ("[routes.b]\nmodel = 'a/b'\n[routes.a]", "routes.a.model: missing"),
    ("[routes.a]\nmodel = 'alone'", 'routes.a.model: expected "provider/model"'),
    ("[routes.'a b']\nmodel = 'a/b'", "routes.a b: a name has"),
    ("[tasks.t]", "tasks.t: name a reference"),
    ("[tasks.t]\nreference = 'a/b'\nstrategy = 'dear'", "tasks.t.strategy: invalid enum value 'dear'. Allowed: "),
    ("[tasks.t]\nstrategy = 'auto'\ncandidates = ['a/b']", 'tasks.t.reference: strategy = "auto" needs it'),
    ("[tasks.t]\nstrategy = 'auto'\nreference = 'a/b'\ncandidates = ['a/b']", "tasks.t.candidates: strategy"),
    (f"{CERTIFIED}\nstrategy = 'single'", 'tasks.t.grader: strategy = "single" needs it, to prove plans against'),
    (f"{CERTIFIED}\nstrategy = 'single'", '"first" asks the first candidate alone'),
    (f"{GRADED}\ncapture = 'hash'", 'it needs receipts, and capture = "full"'),
    (f"[server]\nreceipts = 'off'\n{GRADED}", 'it needs receipts, and capture = "full"'),
    (f"{GRADED}\nshadow_rate = 1.5", "tasks.t.shadow_rate: lies in 0.0 to 1.0"),
    (f"{GRADED}\nmin_checks = 0", "tasks.t.min_checks: lies in 1 to"),
    (f"{GRADED}\nmin_hours = -1.0", "tasks.t.min_hours: lies in 0.0 to"),
    (f"{GRADED}\nrevoke_loss = 0.01", "tasks.t.revoke_loss: lies above max_loss"),
    (f"{GRADED}\nfalse_alarm_checks = 3", "tasks.t.false_alarm_checks: lies in 10 to"),
    (f"{GRADED}\nexpires_days = nan", "tasks.t.expires_days: lies in 0.0 to"),
    (f"{GRADED}\nshadow_budget_usd = {{ day = -1 }}", "tasks.t.shadow_budget_usd.day: USD lie in 0 to"),
    (
        "[tasks.t]\nreference = 'a/b'\ncapture = 'all'",
        "tasks.t.capture: invalid enum value 'all'. Allowed: full, hash, none",
    ),
    ("[tasks.t]\ncandidates = ['a/b', 'a/b']", "tasks.t.candidates: names one of them twice"),
    ("[tasks.t]\nreference = 'a/b'\nmax_loss = 1.0", "tasks.t.max_loss: lies between 0 and 1"),
    ("[tasks.t]\nreference = 'a/b'\nconfidence = nan", "tasks.t.confidence: lies between 0 and 1"),
    ("[tasks.t]\nreference = 'a/b'\nfields = { a = -1.0 }", "tasks.t.fields.a: a weight is 0 or more"),
    ("[providers.task]", "providers.task: task/NAME asks for a task"),
    ("[prices.a]\ninput = 1", "prices.a: give input and output, or usd_per_hour alone"),
    ("[prices.a]\ninput = -1\noutput = 1", "prices.a: USD per million tokens or per hour lie in 0 to 1,000,000"),
    ("[prices.a]\ninput = nan\noutput = 1", "prices.a: USD"),
    ("[prices.a]\ninput = 1\noutput = 1\ncached_input = inf", "prices.a: USD"),
    (f"[prices.a]\ninput = 1{'0' * 400}\noutput = 1", "input"),
]


@pytest.mark.parametrize(("text", "words"), WRONG, ids=[row[0].replace("\n", " ")[:50] for row in WRONG])
def test_a_wrong_value_is_named(tmp_path: Path, text: str, words: str) -> None:
    """Types, choices and ranges of every table; nothing is guessed or converted."""
    assert words in refused(tmp_path, text)


def test_every_number_of_the_server_has_a_range() -> None:
    """No key is left out, and every default lies in its range."""
    numbers = {field.name for field in msgspec.structs.fields(ServerConfig) if field.type in {int, float}}
    assert set(RANGES) == numbers
    assert all(low <= getattr(ServerConfig(), name) <= high for name, (low, high) in RANGES.items())


@pytest.mark.parametrize("name", RANGES)
def test_a_number_out_of_its_range_is_refused(tmp_path: Path, name: str) -> None:
    """The ends are taken; beyond them, NaN and the infinite are not, whether from the file or the environment."""
    low, high = RANGES[name]
    beyond: list[Any] = [-1, low - 1, high + 1, 10**30]
    if isinstance(getattr(ServerConfig(), name), float):
        beyond += ["nan", "inf", "-inf"]
    for value in beyond:
        said = refused(tmp_path, f"[server]\n{name} = {value}")
        assert said == f"{tmp_path}/upstack.toml: server.{name}: lies in {low:,} to {high:,}"
        variable = f"UPSTACK_SERVER_{name.upper()}"
        assert refused(tmp_path, "", **{variable: str(value)}).startswith(f"{variable}: ")
    for value in (low, high):
        assert getattr(loaded(tmp_path, f"[server]\n{name} = {value}").server, name) == value


def test_an_unknown_variable_of_the_server_is_refused() -> None:
    """A slip of the pen in a variable must not pass for a setting; it is named with what was meant, never its value."""
    with pytest.raises(ConfigError) as raised:
        load_config(None, {"UPSTACK_SERVER_PROT": "secret"})
    said = raised.value.message
    assert "UPSTACK_SERVER_PROT" in said
    assert "did you mean `UPSTACK_SERVER_PORT`? Allowed here: " in said
    assert "UPSTACK_SERVER_LEDGER_QUEUE_BYTES" in said
    assert "secret" not in said


def test_an_unknown_key_like_no_other_is_told_from_what_is_allowed(tmp_path: Path) -> None:
    """The list of what is allowed begins a sentence of its own."""
    assert "unknown key `server.zzz`. Allowed here: host, " in refused(tmp_path, "[server]\nzzz = 1")


@pytest.mark.parametrize("value", ["", "four thousand", "4.5", "0x10"])
def test_a_variable_that_is_no_number_is_named(tmp_path: Path, value: str) -> None:
    """By its own name, as there is no line to look at."""
    assert "UPSTACK_SERVER_PORT: expected int, got str" in refused(tmp_path, WHOLE, UPSTACK_SERVER_PORT=value)


BROKEN: list[tuple[str | bytes, str]] = [
    ("[server\n", "not TOML"),
    ("port = 1\nport = 2", "not TOML"),
    (f"x = {'[' * 3000}", "nested too deeply"),
    (f"x = {'{a=' * 3000}", "nested too deeply"),
    (f"x = {'9' * 5000}", "too many digits"),
    (b"x = '\xff'", "cannot be read"),
    ("x = 2026-13-45", "not TOML"),
    ("\x00", "not TOML"),
]


@pytest.mark.parametrize(("text", "words"), BROKEN, ids=range(len(BROKEN)))
def test_a_file_that_is_no_toml_is_refused_whatever_is_in_it(tmp_path: Path, text: str | bytes, words: str) -> None:
    """With its name, and never with a traceback."""
    said = refused(tmp_path, text)
    assert words in said
    assert str(tmp_path / "upstack.toml") in said


def test_a_file_that_is_not_there_or_a_folder_is_said(tmp_path: Path) -> None:
    """Both by their name."""
    for path, words in ((tmp_path / "none.toml", "no such file"), (tmp_path, "cannot be read")):
        with pytest.raises(ConfigError, match=words) as raised:
            load_config(path, {})
        assert str(path) in raised.value.message


# --- Secrets ---------------------------------------------------------------------------------------------------------


def unresolved(reference: str, **environ: str) -> str:
    """Why a reference is no secret."""
    with pytest.raises(ConfigError) as raised:
        resolve_secret(reference, "providers.acme.api_key", environ)
    assert raised.value.message.startswith("providers.acme.api_key: ")
    return raised.value.message


def test_a_secret_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    """Without the blanks and line ends around it."""
    (tmp_path / "key").write_text("  sk-of-the-file\n")
    assert resolve_secret("env:KEY", "x", {"KEY": " sk-of-the-environment\n"}) == "sk-of-the-environment"
    assert resolve_secret(f"file:{tmp_path}/key", "x", {}) == "sk-of-the-file"


def test_a_reference_that_leads_nowhere_is_named() -> None:
    """A variable or a path that looks like one is shown: it is what the user mistyped."""
    assert "the environment variable OPENAI_API_KEY is not set" in unresolved("env:OPENAI_API_KEY")
    assert "EMPTY is not set" in unresolved("env:EMPTY", EMPTY=" ")
    assert "cannot read /no/such/key: FileNotFoundError" in unresolved("file:/no/such/key")
    assert "cannot read ./key.txt: FileNotFoundError" in unresolved("file:./key.txt")
    assert "cannot read /: IsADirectoryError" in unresolved("file:/")


@pytest.mark.parametrize(
    "key",
    [
        "sk-LIVEVALUE99",
        "sk_LIVEVALUE99",
        "gsk_LIVEabcdefghijklmnop1234",
        "AIzaLIVEabcdefghijklmnop1234",
        "eyJhbGci1234567890abcdef.LIVE",
        "abLIVE/cdefghijklmnopqrstuvwxyz0123456789==",
    ],
)
def test_a_key_written_in_place_of_its_reference_is_not_shown(key: str) -> None:
    """Bare, after env: or after file:, in every spelling that a provider's keys have."""
    for reference in (key, f"env:{key}", f"file:{key}", f"file:/{key}", f"ENV:{key}", f"env: {key}"):
        said = unresolved(reference)
        assert "LIVE" not in said
        assert key[4:] not in said
    for reference in ("LIVE-VALUE", "env:LIVE-VALUE", "file:LIVE-VALUE"):
        assert "LIVE" not in unresolved(reference), "what is neither a variable nor a path is not shown either"


@pytest.mark.parametrize("value", ["two words", "sk-LIVE\u00e9", "a\nb", "tab\there", "\x7f"])
def test_a_secret_that_cannot_go_into_a_header_is_refused_unseen(tmp_path: Path, value: str) -> None:
    """From either place; neither the value nor a part of it is in the message."""
    (tmp_path / "key").write_text(value)
    for said in (unresolved("env:KEY", KEY=value), unresolved(f"file:{tmp_path}/key")):
        assert "blanks, control or non-ASCII" in said
        assert value not in said
        assert "LIVE" not in said


def test_a_file_that_holds_no_secret_is_refused(tmp_path: Path) -> None:
    """Empty, not text, or a path that no system takes."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfeLIVE")
    assert "is empty" in unresolved(f"file:{tmp_path}/empty")
    assert "UnicodeDecodeError" in unresolved(f"file:{tmp_path}/binary")
    assert "ValueError" in unresolved("file:/a\x00b")


def test_a_configuration_holds_references_and_never_their_values(tmp_path: Path) -> None:
    """Reading a file resolves nothing, so whatever prints a configuration prints no secret."""
    config = loaded(tmp_path, WHOLE, ONE="sk-LIVE")
    assert "sk-LIVE" not in repr(config)
    for text in ("[providers.a]\napi_key = 7", "[providers.a]\napi_key = 'sk-LIVE'\nx = 1", "api_key = sk-LIVE"):
        assert "LIVE" not in refused(tmp_path, text)
