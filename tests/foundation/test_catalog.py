from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstack.core.config import Config, ProviderConfig, TimeoutsConfig
from upstack.core.errors import ConfigError
from upstack.core.types import Provider, Timeouts, Tls
from upstack.foundation.catalog import Row, find_row, providers_from, rows, unsupported, warnings, why_missing

HOSTED = [row for row in rows() if not row.local and row.unsupported is None]
LOCAL = [row for row in rows() if row.local]
AZURE = {"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_ENDPOINT": "https://res.openai.azure.com/"}


def configured(name: str, environ: dict[str, str] | None = None, **table: object) -> Provider:
    """The provider that one `[providers.NAME]` table makes."""
    config = Config(providers={name: ProviderConfig(**table)})  # type: ignore[arg-type]
    return providers_from(config, environ or {})[name]


def found(**environ: str) -> dict[str, Provider]:
    """The providers that an environment alone makes."""
    return providers_from(Config(), environ)


# --- The rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_a_row_holds_together(row: Row) -> None:
    """Each row names its source and is either callable or says why not."""
    assert row.source.startswith("https://")
    assert re.fullmatch(r"[a-z0-9-]+", row.name)
    if row.unsupported is not None:
        assert row.base_url is None
        return
    assert row.base_url or row.url_env
    assert row.key_env or row.local
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]+", name) for name in (*row.key_env, *row.url_env))
    if row.base_url is not None:
        url = urlsplit(row.base_url)
        assert url.scheme == ("http" if row.local else "https")
        assert not row.base_url.endswith("/")
        assert (url.hostname == "127.0.0.1") == row.local


def test_the_names_in_the_price_list_are_names_there() -> None:
    """A misspelt name would make every price of a provider unknown without a word."""
    from genai_prices.data import providers

    assert {row.prices for row in rows() if row.prices} <= {provider.id for provider in providers}


def test_the_vendors_people_have_keys_for_are_there() -> None:
    """The names that configurations use do not change by accident."""
    names = {row.name for row in rows()}
    assert {"openai", "azure", "anthropic", "gemini", "deepseek", "dashscope", "openrouter", "mistral", "xai"} <= names
    assert {"ollama", "vllm", "llama-server", "lmstudio", "sglang", "tgi"} <= names
    assert {"bedrock", "vertex"} <= set(unsupported())
    assert find_row("openai") is not None
    assert find_row("nobody") is None


# --- The environment -------------------------------------------------------------------------------------------------


def test_an_empty_environment_offers_nothing() -> None:
    """No key, no URL, no provider; and blanks are not a key."""
    assert providers_from(Config(), {}) == {}
    assert found(OPENAI_API_KEY="  ", OLLAMA_HOST="") == {}


@pytest.mark.parametrize("row", HOSTED, ids=lambda row: row.name)
def test_a_key_in_the_environment_makes_a_provider(row: Row) -> None:
    """Every hosted row is ready with its key (and URL, where only the user knows that)."""
    environ = {row.key_env[0]: "sk-1"} | ({row.url_env[0]: "https://example.org"} if row.url_env else {})
    provider = providers_from(Config(), environ)[row.name]
    assert provider.backend == "openai"
    assert provider.headers == (((("authorization", "Bearer sk-1") if row.auth == "bearer" else (row.auth, "sk-1")),),)
    assert provider.base_url == (row.base_url or "https://example.org/openai/v1")
    assert provider.usage_in_stream == row.usage_in_stream
    assert provider.catalog == (row.prices or "")
    assert "sk-1" not in repr(provider)


@pytest.mark.parametrize("row", LOCAL, ids=lambda row: row.name)
def test_a_url_in_the_environment_makes_a_local_provider(row: Row) -> None:
    """Self-hosted servers are found by their URL, need no key, send one where it is set, and have no list price."""
    environ = {row.url_env[0]: "http://10.0.0.7:9000"}
    assert providers_from(Config(), environ)[row.name].headers == ((),)
    assert providers_from(Config(), environ)[row.name].base_url == "http://10.0.0.7:9000/v1"
    assert providers_from(Config(), environ)[row.name].catalog == ""
    if row.key_env:
        keyed = providers_from(Config(), environ | {row.key_env[0]: "k"})[row.name]
        assert keyed.headers == ((("authorization", "Bearer k"),),)
        assert row.name not in found(**{row.key_env[0]: "k"})


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080/v1"),
        (":11435", "http://127.0.0.1:11435/v1"),
        ("::", "http://[::1]:11434/v1"),
        ("[::]:99", "http://[::1]:99/v1"),
        ("::1", "http://[::1]:11434/v1"),
        ("gpu-box", "http://gpu-box:11434/v1"),
        ("gpu-box:1234", "http://gpu-box:1234/v1"),
        ("gpu-box:1234/", "http://gpu-box:1234/v1"),
        ("http://gpu-box", "http://gpu-box/v1"),
        ("HTTP://gpu-box:80/", "http://gpu-box:80/v1"),
        ("https://ollama.example.org/prefix/", "https://ollama.example.org/prefix/v1"),
        ("https://ollama.example.org/v1/", "https://ollama.example.org/v1"),
        ('"127.0.0.1:11434"', "http://127.0.0.1:11434/v1"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(value: str, url: str) -> None:
    """A bare host, a host with a port, a URL, an address to listen on everywhere."""
    assert found(OLLAMA_HOST=value)["ollama"].base_url == url


def test_the_openai_row_ignores_where_clients_are_pointed() -> None:
    """OPENAI_BASE_URL usually is this gateway: following it would be a loop. It is reported, without its value."""
    environ = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://127.0.0.1:4000/v1?secret=1"}
    assert providers_from(Config(), environ)["openai"].base_url == "https://api.openai.com/v1"
    (warning,) = warnings(Config(), environ)
    assert "OPENAI_BASE_URL" in warning
    assert "secret" not in warning


def test_openai_sends_its_organisation_and_project() -> None:
    """What the official client sends from the environment is sent here too."""
    provider = found(OPENAI_API_KEY="k", OPENAI_ORG_ID="org-1", OPENAI_PROJECT_ID="proj-1")["openai"]
    assert provider.headers[0][1:] == (("openai-organization", "org-1"), ("openai-project", "proj-1"))


def test_azure_calls_deployments_with_a_version_and_the_v1_api_without() -> None:
    """The version in the environment or the table decides; a URL of the v1 API refuses one."""
    provider = found(**AZURE, OPENAI_API_VERSION="2024-10-21")["azure"]
    assert provider.base_url == "https://res.openai.azure.com"
    assert provider.chat_path == "/openai/deployments/{model}/chat/completions"
    assert provider.query == (("api-version", "2024-10-21"),)
    assert provider.headers == ((("api-key", "k"),),)

    plain = found(**AZURE)["azure"]
    assert (plain.base_url, plain.query) == ("https://res.openai.azure.com/openai/v1", ())
    assert plain.chat_path == "/chat/completions"

    v1 = AZURE | {
        "AZURE_OPENAI_ENDPOINT": "https://res.openai.azure.com/openai/v1/",
        "OPENAI_API_VERSION": "2024-10-21",
    }
    assert providers_from(Config(), v1)["azure"] == plain

    table = configured("azure", {"K": "k"}, base_url="https://res.openai.azure.com", api_key="env:K", api_version="v")
    assert (table.chat_path, table.query) == (provider.chat_path, (("api-version", "v"),))


def test_azure_needs_its_endpoint_too() -> None:
    """A key without a place to send it makes no provider, and the remedy names both."""
    assert found(AZURE_OPENAI_API_KEY="k") == {}
    assert "AZURE_OPENAI_API_KEY and AZURE_OPENAI_ENDPOINT" in why_missing("azure", {"AZURE_OPENAI_API_KEY": "k"})


def test_providers_that_refuse_stream_options_are_not_asked() -> None:
    """Mistral and Cohere answer 422 to stream_options.include_usage."""
    both = found(MISTRAL_API_KEY="k", COHERE_API_KEY="k")
    assert not both["mistral"].usage_in_stream
    assert not both["cohere"].usage_in_stream


@pytest.mark.parametrize(
    "environ",
    [
        {"XAI_API_KEY": "<your key here>"},
        {"XAI_API_KEY": "a\r\nx-evil: 1"},
        {"OPENAI_API_KEY": "k", "OPENAI_ORG_ID": "org\r\nx-evil: 1"},
        {"OLLAMA_HOST": "http://user:hunter2@box:1"},
        {"VLLM_BASE_URL": "http://box:99999"},
        AZURE | {"OPENAI_API_VERSION": "1&x=2"},
    ],
)
def test_a_broken_environment_leaves_that_provider_out_and_says_so(environ: dict[str, str]) -> None:
    """A placeholder key of an unused vendor must not keep the gateway from starting, nor be shown."""
    assert providers_from(Config(), environ) == {}
    (warning,) = warnings(Config(), environ)
    name = warning.partition(" ")[0]
    assert warning == why_missing(name, environ)
    assert "left out" in warning
    assert not any(value in warning for value in environ.values() if len(value) > 1)


# --- The configuration -----------------------------------------------------------------------------------------------


def test_a_table_overlays_its_row() -> None:
    """What the table says wins; the rest stays as the row and the environment have it."""
    provider = configured(
        "deepseek",
        {"DEEPSEEK_API_KEY": "k"},
        base_url="https://proxy.example.org/v1/",
        chat_path="/ask/{model}",
        usage_in_stream=False,
        prices_from="openrouter",
        timeouts=TimeoutsConfig(connect=1.5),
        ca_bundle="/ca.pem",
        client_cert="/c.pem",
        client_key="/k.pem",
    )
    assert provider == Provider(
        name="deepseek",
        backend="openai",
        base_url="https://proxy.example.org/v1",
        headers=((("authorization", "Bearer k"),),),
        chat_path="/ask/{model}",
        timeouts=Timeouts(connect=1.5),
        tls=Tls("/ca.pem", "/c.pem", "/k.pem"),
        usage_in_stream=False,
        catalog="openrouter",
    )


def test_a_table_may_bring_a_key_of_its_own(tmp_path: Path) -> None:
    """A reference in the table stands before the environment's; it may be a file."""
    (tmp_path / "key").write_text("from-file\n")
    environ = {"DEEPSEEK_API_KEY": "other", "MINE": "mine"}
    assert configured("deepseek", environ, api_key="env:MINE").headers == ((("authorization", "Bearer mine"),),)
    filed = configured("deepseek", environ, api_key=f"file:{tmp_path}/key")
    assert filed.headers == ((("authorization", "Bearer from-file"),),)


def test_several_keys_are_several_credentials() -> None:
    """The load is balanced over them; each has the extra headers too."""
    environ = {"A": "a", "B": "b", "OPENAI_ORG_ID": "org"}
    provider = configured("openai", environ, api_keys=("env:A", "env:B"))
    assert provider.headers == (
        (("authorization", "Bearer a"), ("openai-organization", "org")),
        (("authorization", "Bearer b"), ("openai-organization", "org")),
    )


def test_a_provider_of_ones_own_needs_only_a_url() -> None:
    """Outside the catalogue: no key unless one is given, no list price unless one is named."""
    bare = configured("house", base_url="http://127.0.0.1:9000/api")
    assert (bare.base_url, bare.headers, bare.catalog) == ("http://127.0.0.1:9000/api", ((),), "")
    keyed = configured("house", {"K": "k"}, base_url="https://h.example.org", api_key="env:K", api_version="2")
    assert keyed.headers == ((("authorization", "Bearer k"),),)
    assert keyed.query == (("api-version", "2"),)
    other = configured("house", {"K": "k"}, base_url="https://h.example.org", api_key="env:K", auth="X-Api-Key")
    assert other.headers == ((("x-api-key", "k"),),)


def test_auth_none_sends_no_key() -> None:
    """A hosted row behind a proxy that adds the key itself."""
    assert configured("openai", base_url="http://127.0.0.1:1/v1", auth="none").headers == ((),)


def test_a_local_row_in_the_configuration_needs_nothing_else() -> None:
    """An empty table is enough for a server at its usual place; a bare URL gets its /v1."""
    assert configured("ollama").base_url == "http://127.0.0.1:11434/v1"
    assert configured("vllm", base_url="http://gpu:8000").base_url == "http://gpu:8000/v1"
    assert configured("vllm", base_url="http://gpu:8000/llm/v3").base_url == "http://gpu:8000/llm/v3"


def test_the_file_wins_over_the_environment() -> None:
    """A URL in the table is the one that is called."""
    environ = {"OLLAMA_HOST": "elsewhere", "OPENAI_API_KEY": "k"}
    config = Config(providers={"ollama": ProviderConfig(base_url="http://here:1")})
    made = providers_from(config, environ)
    assert set(made) == {"ollama", "openai"}
    assert made["ollama"].base_url == "http://here:1/v1"
    assert warnings(config, environ | {"OLLAMA_HOST": "http://broken:99999"}) == [
        "ollama: here is called over plain http: keys and content go unencrypted"
    ]


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("house", {}, "providers.house.base_url: needed"),
        ("opnai", {}, "did you mean openai"),
        ("tgi", {}, "providers.tgi.base_url: needed here, or in the environment: TGI_BASE_URL"),
        ("deepseek", {}, "providers.deepseek: no key: set DEEPSEEK_API_KEY"),
        ("deepseek", {"api_key": "env:NOWHERE"}, "NOWHERE is not set"),
        ("deepseek", {"api_key": "sk-not-a-reference"}, "never the value itself"),
        ("deepseek", {"api_key": "env:K", "api_keys": ("env:K",)}, "not both"),
        ("deepseek", {"api_keys": ("env:K", "env:NOWHERE")}, r"api_keys\[1\]"),
        ("deepseek", {"api_key": "env:K", "auth": "none"}, "contradict"),
        ("deepseek", {"api_key": "env:K", "auth": "a b"}, "providers.deepseek.auth"),
        ("deepseek", {"api_key": "env:K", "auth": "Content-Length"}, "providers.deepseek.auth"),
        ("deepseek", {"api_key": "env:CRLF"}, "blanks, control"),
        ("house", {"base_url": "https://h", "auth": "x-key"}, "set api_key"),
        ("house", {"base_url": "ftp://h"}, "http:// or https://"),
        ("house", {"base_url": "h:1/v1"}, "http:// or https://"),
        ("house", {"base_url": "https://"}, "needs a host"),
        ("house", {"base_url": "https://:443/v1"}, "needs a host"),
        ("house", {"base_url": "https://h:0"}, "port other than 0"),
        ("house", {"base_url": "https://h:70000"}, "bad host or port"),
        ("house", {"base_url": "https://[::1"}, "bad host or port"),
        ("house", {"base_url": "https://h\\@evil"}, "no user name|needs a host"),
        ("house", {"base_url": "https://user:hunter2@h"}, "no user name or password"),
        ("house", {"base_url": "https://@h"}, "no user name or password"),
        ("house", {"base_url": "https://h/v1?key=hunter2"}, "no query"),
        ("house", {"base_url": "https://h/v1#x"}, "no query or fragment"),
        ("house", {"base_url": "https://h/a b"}, "blanks"),
        ("house", {"base_url": "https://h/\r\nx: 1"}, "blanks"),
        ("house", {"base_url": "https://bücher.example"}, "non-ASCII"),
        ("house", {"base_url": "https://h", "chat_path": "chat"}, "providers.house.chat_path: starts with /"),
        ("house", {"base_url": "https://h", "chat_path": "/c?x=1"}, "chat_path"),
        ("house", {"base_url": "https://h", "chat_path": "/{deployment}"}, "the only placeholder"),
        ("house", {"base_url": "https://h", "api_version": "1&2"}, "api_version"),
        ("azure", {"base_url": "https://h/openai/v1", "api_key": "env:K", "api_version": "1"}, "takes none"),
        ("house", {"base_url": "https://h", "client_key": "/k.pem"}, "client_cert"),
        ("house", {"base_url": "https://h", "timeouts": TimeoutsConfig(total=0)}, "timeouts.total"),
        ("house", {"base_url": "https://h", "timeouts": TimeoutsConfig(connect=float("nan"))}, "timeouts.connect"),
        ("bedrock", {}, "SigV4"),
        ("vertex", {"api_key": "env:K"}, "service accounts"),
    ],
)
def test_a_table_that_cannot_work_is_refused(name: str, table: dict[str, object], message: str) -> None:
    """The message names the key and what to do, and never shows a secret."""
    with pytest.raises(ConfigError, match=message) as caught:
        configured(name, {"K": "sk-hidden", "CRLF": "sk-hid\r\nden"}, **table)
    assert not re.search(r"hunter2|sk-", caught.value.message)


# --- What cannot be called -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [row for row in rows() if row.unsupported], ids=lambda row: row.name)
def test_an_unsupported_row_makes_no_provider_and_says_why(row: Row) -> None:
    """Its key in the environment changes nothing; a URL and key of one's own do."""
    environ = dict.fromkeys(row.key_env, "k")
    assert providers_from(Config(), environ) == {}
    assert why_missing(row.name, environ) == f"{row.name} cannot be called yet: {row.unsupported}"
    assert configured(row.name, {"K": "k"}, base_url="https://h/v1", api_key="env:K").base_url == "https://h/v1"


def test_the_remedy_for_a_missing_provider_is_named() -> None:
    """The key to set, the URL to set, or the name that was probably meant."""
    assert "set DEEPSEEK_API_KEY, or write a table [providers.deepseek]" in why_missing("deepseek", {})
    assert "set OLLAMA_HOST or OLLAMA_BASE_URL" in why_missing("ollama", {})
    assert "Did you mean openai?" in why_missing("opnai", {})
    assert "[providers.zzz]" in why_missing("zzz", {})


def test_plain_http_beyond_this_machine_is_reported() -> None:
    """It is allowed, as inside a cluster, but said."""
    config = Config(
        providers={
            "near": ProviderConfig(base_url="http://localhost:1"),
            "near6": ProviderConfig(base_url="http://[::1]:1"),
            "far": ProviderConfig(base_url="http://10.0.0.1"),
            "safe": ProviderConfig(base_url="https://10.0.0.1"),
        }
    )
    (warning,) = warnings(config, {})
    assert warning.startswith("far: 10.0.0.1")


@given(st.text(alphabet=st.sampled_from("htps:/@?#[]%.0a1-_\\ \té{}"), max_size=30).map("http://".__add__) | st.text())
def test_whatever_is_configured_as_a_url_is_refused_or_plain(value: str) -> None:
    """No text gets past the check with credentials, a query, blanks or no host in it."""
    try:
        provider = configured("house", base_url=value)
    except ConfigError:
        return
    url = urlsplit(provider.base_url)
    assert url.scheme in {"http", "https"}
    assert url.hostname
    assert url.username is None
    assert not url.query
    assert not url.fragment
    assert provider.base_url.isascii()
    assert provider.base_url.isprintable()
    assert " " not in provider.base_url
