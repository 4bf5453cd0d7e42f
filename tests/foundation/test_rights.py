"""What terms and licences permit, under a profile: unknown is no, and a student may do what all its rows may."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from upstack.core.config.rights import RightsConfig, SaidConfig, Text, Unless
from upstack.core.errors import ConfigError
from upstack.foundation.rights import (
    USES,
    Facts,
    Rights,
    check_conditions,
    digest_of,
    judge,
    meets,
    shipped,
    table_of,
    together,
    version_of,
)

NOW = date(2026, 11, 1)


def judged(facts: Facts, profile: RightsConfig | None = None, *, classifier: bool = True) -> Rights:
    """Judge by the table that ships, and the profile's own texts."""
    profile = profile or RightsConfig()
    return judge(facts, table_of(profile), profile, classifier=classifier)


@pytest.mark.parametrize(
    ("facts", "may_distil"),
    [
        (Facts(provider="openai", day=NOW), True),
        (Facts(provider="openai", day=date(2025, 6, 1)), False),
        (Facts(provider="openai", day=date(2020, 1, 1)), False),
        (Facts(provider="anthropic", day=NOW), False),
        (Facts(provider="google", day=NOW), False),
        (Facts(provider="mistral", day=NOW), False),
        (Facts(provider="nobody-knows", day=NOW), False),
        (Facts(provider="local", licence="apache-2.0"), True),
        (Facts(provider="local", licence="MIT"), True),
        (Facts(provider="local", licence="llama-2"), False),
        (Facts(provider="local", licence="llama-3"), False),
        (Facts(provider="local", licence="llama-3.1"), True),
        (Facts(provider="local", licence="gemma"), True),
        (Facts(provider="local", licence="deepseek-1.0"), True),
        (Facts(provider="openai", day=NOW, licence="cc-by-nc-4.0"), False),
        (Facts(licence="a licence that nobody read"), False),
        (Facts(), True),
    ],
)
def test_a_models_answer_may_teach_where_every_text_says_so(facts: Facts, may_distil: bool) -> None:
    """What is not known is not permitted, and says where it would have to be."""
    rights = judged(facts)
    assert rights.may_distil is may_distil
    assert rights.reasons["distil"]


def test_the_exception_for_classifiers_hangs_on_its_conditions() -> None:
    """A student is bound by them; one that chats, or that leaves the house, is not excepted."""
    facts = Facts(provider="openai", day=NOW)
    assert set(judged(facts).conditions) == {"classifier", "not_distributed"}
    assert not judged(facts, RightsConfig(distributed=True)).may_distil
    assert not judged(facts, classifier=False).may_distil


def test_what_is_owed_and_how_big_one_may_be_come_from_the_licence() -> None:
    """Llama's name, Qwen's credit and limit of users, what Gemma passes on."""
    assert "name_prefix:Llama" in judged(Facts(provider="local", licence="llama-3.3")).obligations
    assert judged(Facts(provider="local", licence="qwen")).obligations == ("credit:Qwen",)
    assert not judged(Facts(provider="local", licence="qwen"), RightsConfig(users=200_000_000)).may_distil
    assert "inherit:gemma" in judged(Facts(provider="local", licence="gemma-2")).obligations


def test_consent_purpose_and_residency_stand_above_all_texts() -> None:
    """Refused consent forbids everything, another purpose learning, residency leaving."""
    assert not any(judged(Facts(consent="no", licence="mit")).permits.values())
    billing = Facts(purpose="billing", licence="mit")
    assert not judged(billing).may_train
    assert judged(billing, RightsConfig(purposes=("billing",))).may_train
    here = Facts(residency="onsite", licence="mit")
    assert judged(here).may_train
    assert not judged(here).may_export
    assert judged(here, RightsConfig(region="onsite")).may_export


def test_a_text_of_ones_own_takes_the_place_of_those_that_ship() -> None:
    """By provider, by a licence's name in any case, or by the hash of its text."""
    ours = Text(providers=("anthropic",), train="yes", distil="yes", source="our contract")
    assert judged(Facts(provider="anthropic", day=NOW), RightsConfig(terms={"ours": ours})).may_distil
    text = "You may  do\nwhat you like."
    read = Text(sha256=(digest_of(text),), names=("Do-As-You-Like",), train="yes", distil="yes", export="yes")
    profile = RightsConfig(licences={"read": read})
    assert judged(Facts(licence=f"sha256:{digest_of('You may do what you like.')}"), profile).may_train
    assert judged(Facts(licence="do-as-you-like"), profile).may_export
    licence = Path(__file__).resolve().parents[2] / "LICENSE"
    assert judged(Facts(licence=f"sha256:{digest_of(licence.read_text())}")).may_share


def test_the_configuration_says_what_rows_do_not(tmp_path: Path) -> None:
    """Of a task's requests, and of the weights that a provider of one's own runs."""
    from upstack.application.data.capture import Captured
    from upstack.application.data.rights import Judge

    row = Captured("rcpt_1", "triage", 1.7e9, (), "leaks", check=True, teacher="pump", provider="local", model="m")
    profile = RightsConfig(weights={"local": "llama-2"}, tasks={"triage": SaidConfig(purpose="support")})
    facts = Judge(str(tmp_path / "l.db"), profile).facts(row, {})
    assert (facts.licence, facts.purpose) == ("llama-2", "support")
    assert Judge(str(tmp_path / "l.db"), profile).facts(row, {"licence": "mit"}).licence == "mit"


def test_what_is_made_of_several_rows_may_do_what_all_may_and_owes_what_all_owe() -> None:
    """The AND of permissions, the union of obligations and conditions; of nothing there is nothing to forbid."""
    mit, openai = judged(Facts(licence="mit")), judged(Facts(provider="openai", day=NOW))
    both = together([mit, openai])
    assert both.permits == {use: mit.permits[use] and openai.permits[use] for use in USES}
    assert set(both.obligations) == {"notice"}
    assert set(both.conditions) == {"classifier", "not_distributed"}
    assert both.reasons["share"] == openai.reasons["share"]
    assert all(together([]).permits.values())


def test_a_condition_that_nobody_knows_is_an_error_where_it_stands() -> None:
    """Its place is named."""
    for condition in ("on sundays", "users<abc", "revenue<"):
        own = Text(unless=(Unless((condition,), distil="yes"),))
        with pytest.raises(ConfigError, match=r"rights.terms.mine"):
            check_conditions(RightsConfig(terms={"mine": own}), "rights")
    assert meets("region!=eu", RightsConfig(region="us"), classifier=True)


def test_the_table_says_where_each_line_is_from_and_changes_its_version_with_any_word() -> None:
    """A text without a source cannot be checked by anybody."""
    table = shipped()
    for text in (*table.terms.values(), *table.licences.values()):
        assert text.source
    assert version_of(table, RightsConfig()) != version_of(table, RightsConfig(users=1))
