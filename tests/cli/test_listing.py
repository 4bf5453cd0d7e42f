"""`upstack routes`, `tasks` and `reload`: what is configured, and what the running gateway says of it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.calling import call
from tests.gateway.serving import Serving, chat, provider
from upstack.testing import EchoProvider

CONFIG = """
[routes.cheap]
model = "echo/echo-1"
residency = "onsite"
[routes.dear]
model = "openai/gpt-4o"
[routes.new]
model = "echo/nobody-knows-its-price"
[prices.cheap]
input = 0.1
output = 0.075
[prices.dear]
input = 2.5
output = 10
[tasks.sort]
candidates = ["cheap", "new"]
reference = "dear"
[tasks.home]
candidates = ["cheap", "dear"]
residency = ["onsite"]
[providers.openai]
api_keys = ["env:ONE", "env:TWO"]
"""
NO_KEY = 'auth = "none"'
KEYS = {"ONE": "secret-of-one", "TWO": "secret-of-two", "GROQ_API_KEY": "secret-of-groq"}


def _served(echo: EchoProvider) -> str:
    return CONFIG + provider("echo", echo.base_url, NO_KEY)


def _config(folder: Path, base_url: str = "http://127.0.0.1:9/v1", port: int = 1) -> None:
    text = f"[server]\nport = {port}\n{CONFIG}{provider('echo', base_url, NO_KEY)}"
    (folder / "upstack.toml").write_text(text)


def test_routes_say_what_they_cost_and_an_unknown_price_is_unknown(tmp_path: Path) -> None:
    """Prices are exact, an unknown one is never 0, no key is shown, and providers without a route are there too."""
    _config(tmp_path)
    done = call("routes", cwd=tmp_path, **KEYS)
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    cheap, dear, new = (next(line for line in lines if line[:1] == [name]) for name in ("cheap", "dear", "new"))
    assert cheap[1:4] == ["0.10,", "0.075", "onsite"]
    assert dear[1:4] == ["2.50,", "10.00", "-"]
    assert new[1] == "unknown"
    assert "none needed" in done.out
    keys = {line[0]: line[-1] for line in lines if line[:1] in (["echo"], ["groq"], ["openai"])}
    assert keys == {"echo": "needed", "groq": "1", "openai": "2"}
    assert "No gateway runs at http://127.0.0.1:1" in done.out
    assert "secret" not in done.out
    assert "\x1b" not in done.out
    assert not any(line != line.rstrip() for line in done.out.splitlines())


def test_routes_as_json_hold_every_tier_and_version(tmp_path: Path) -> None:
    """What a program needs: exact decimals, null for what is unknown."""
    _config(tmp_path)
    whole = call("routes", "--json", cwd=tmp_path, **KEYS).json
    routes = {route["name"]: route for route in whole["routes"]}
    assert routes["cheap"]["price"]["tiers"][0]["output_usd_per_million"] == "0.075"
    assert routes["new"]["price"] is None
    assert len(routes["dear"]["version"]) == 12
    assert whole["gateway"] is None
    assert {each["name"]: each["credentials"] for each in whole["providers"]} == {"echo": 0, "openai": 2, "groq": 1}
    assert "secret" not in str(whole)


def test_routes_show_health_where_a_gateway_runs(tmp_path: Path) -> None:
    """Answers and failures come from the gateway that runs where the configuration says."""
    with (
        EchoProvider() as echo,
        Serving(tmp_path, CONFIG + provider("echo", echo.base_url, NO_KEY), env=KEYS) as gateway,
    ):
        assert gateway.post(chat("cheap")).status_code == 200
        (tmp_path / "upstack.toml").write_text(f"[server]\nport = {gateway.port}\n{gateway.config.read_text()}")
        done = call("routes", cwd=tmp_path, **KEYS)
        assert "1 answered" in done.out
        assert "not asked" in done.out
        whole = call("routes", "--json", cwd=tmp_path, **KEYS).json
        assert whole["gateway"] == gateway.url
        assert {each["name"]: each["health"] for each in whole["routes"]}["cheap"]["cheap"]["answered"] == 1


def test_routes_of_a_gateway_elsewhere_are_that_gateway_s(tmp_path: Path) -> None:
    """With --url nothing local is shown: its routes, its tasks, their health."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "upstack.toml").write_text('[routes.mine]\nmodel = "openai/gpt-4o"\n')
    with (
        EchoProvider() as echo,
        Serving(tmp_path, CONFIG + provider("echo", echo.base_url, NO_KEY), env=KEYS) as gateway,
    ):
        assert gateway.post(chat("cheap")).status_code == 200
        done = call("routes", "--url", f"{gateway.url}/v1", cwd=tmp_path / "here")
        assert (done.code, done.err) == (0, "")
        lines = [line.split() for line in done.out.splitlines()]
        assert ["cheap", "echo", "1", "answered"] in lines
        assert ["dear", "openai", "not", "asked"] in lines
        assert "Tasks: task/home, task/sort." in done.out
        assert "mine" not in done.out
        whole = call("routes", "--url", gateway.url, "--json", cwd=tmp_path / "here").json
        rows = {each["name"]: each for each in whole["routes"]}
        assert sorted(rows) == ["cheap", "dear", "new"]
        assert (rows["cheap"]["provider"], rows["cheap"]["health"]["cheap"]["answered"]) == ("echo", 1)


def test_routes_of_a_gateway_that_does_not_answer_are_an_error(tmp_path: Path) -> None:
    """The configuration here is no answer to a question about another place."""
    _config(tmp_path)
    done = call("routes", "--url", "http://127.0.0.1:1", cwd=tmp_path, **KEYS)
    done.failed(1, "no gateway answers at http://127.0.0.1:1")
    assert done.out == ""


def test_a_long_name_is_broken_between_its_parts(tmp_path: Path) -> None:
    """Never inside a word, at a width where it does not fit on a line."""
    name = "fireworks/accounts/fireworks/models/llama-v3p1-70b-instruct-of-many-words"
    (tmp_path / "upstack.toml").write_text(f'[tasks.sort]\ncandidates = ["{name}"]\n')
    for command in ("routes", "tasks"):
        printed = call(command, cwd=tmp_path, FIREWORKS_API_KEY="x", COLUMNS="80").out
        assert name not in printed
        assert name in re.sub(r"(?<=[/-])( .*)?\n +", "", printed), printed


def test_nothing_configured_says_what_to_do(tmp_path: Path) -> None:
    """An empty folder and environment are no error."""
    done = call("routes", cwd=tmp_path)
    assert done.code == 0
    assert "OPENAI_API_KEY" in done.out
    assert call("routes", "--json", cwd=tmp_path).json["providers"] == []
    done = call("tasks", cwd=tmp_path)
    assert done.code == 0
    assert "[tasks.NAME]" in done.out


def test_tasks_say_their_order_and_claim_nothing(tmp_path: Path) -> None:
    """The order of asking, the reference, what residency forbids, and that nothing is certified."""
    _config(tmp_path)
    done = call("tasks", cwd=tmp_path, **KEYS)
    assert done.code == 0, done.err
    for words in ("task/sort", "1. cheap", "2. new", "3. dear", "nothing certified", "dear (residency forbids it)"):
        assert words in done.out
    tasks = {task["name"]: task for task in call("tasks", "--json", cwd=tmp_path, **KEYS).json["tasks"]}
    assert tasks["sort"]["order"] == ["cheap", "new", "dear"]
    assert tasks["home"]["forbidden"] == ["dear"]
    assert not any(task["certified"] for task in tasks.values())


def test_reload_swaps_or_says_why_not(tmp_path: Path) -> None:
    """A good file is a new generation; a broken one is refused in one line, and the old one goes on serving."""
    with EchoProvider() as echo:
        good = CONFIG + provider("echo", echo.base_url, NO_KEY)
        with Serving(tmp_path, good, env=KEYS) as gateway:
            done = call("reload", "--url", gateway.url, cwd=tmp_path)
            assert done.code == 0
            assert "generation 2" in done.out
            gateway.config.write_text(good.replace("residency", "residence"))
            call("reload", "--url", gateway.url, cwd=tmp_path).failed(2, "residence", "keeps its old configuration")
            assert gateway.post(chat("cheap")).status_code == 200
            gateway.config.write_text(good)
            generation = call("reload", "--url", gateway.url, "--json", cwd=tmp_path).json["generation"]
            assert generation >= 3


def test_reload_of_a_file_broken_here_says_that_the_old_one_stays(tmp_path: Path) -> None:
    """The same words and exit code, wherever the fault is found."""
    (tmp_path / "upstack.toml").write_text("[server\n")
    call("reload", cwd=tmp_path).failed(2, "keeps its old configuration", "not TOML")


def test_reload_without_a_gateway_is_an_error(tmp_path: Path) -> None:
    """It says where it looked."""
    _config(tmp_path)
    call("reload", cwd=tmp_path).failed(1, "http://127.0.0.1:1", "upstack serve")
