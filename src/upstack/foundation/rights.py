"""What may be done with a row, and with a student that learned from it: as terms and licences say, under a profile.

Not legal advice. Values are yes, no and unknown, and unknown is no. Of several texts that bear on a row each has to
permit; obligations add up. Pure, but for the table that ships, which is read once.
"""

from __future__ import annotations

import functools
import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Literal

import msgspec

from upstack.core.config.rights import RightsConfig, Text, Value
from upstack.core.errors import ConfigError

Use = Literal["train", "distil", "export", "share"]
USES: tuple[Use, ...] = ("train", "distil", "export", "share")
NOT_ADVICE = "Not legal advice: read the texts, and have someone read yours who may advise you."


class Table(msgspec.Struct, frozen=True):
    """All texts that are known, by name."""

    terms: dict[str, Text] = {}
    licences: dict[str, Text] = {}


class Facts(msgspec.Struct, frozen=True):
    """What is known of a row. Empty: nothing was said."""

    provider: str = ""  # of the answer; empty: no model gave one
    model: str = ""
    day: date | None = None  # when it answered
    licence: str = ""  # of the row, or of the model's weights: a name, or sha256:...
    consent: str = ""  # yes, no
    purpose: str = ""
    subject: str = ""
    residency: str = ""


class Rights(msgspec.Struct, frozen=True):
    """What may be done, and why not."""

    permits: dict[str, bool]
    reasons: dict[str, str]  # by use
    obligations: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()  # that a permission hangs on: a student is served under them alone
    texts: tuple[str, ...] = ()  # names of those that were applied: the terms version

    @property
    def may_train(self) -> bool:
        """Whether it may be learned from."""
        return self.permits["train"]

    @property
    def may_distil(self) -> bool:
        """Whether its answer may teach a model."""
        return self.permits["distil"]

    @property
    def may_export(self) -> bool:
        """Whether it may leave as a file."""
        return self.permits["export"]

    @property
    def may_share(self) -> bool:
        """Whether it may be given to others."""
        return self.permits["share"]


def judge(facts: Facts, table: Table, profile: RightsConfig, *, classifier: bool = True) -> Rights:
    """Say what may be done with a row; `classifier`: what would learn from it chooses among answers."""
    permits: dict[str, bool] = dict.fromkeys(USES, True)
    reasons: dict[str, str] = {}
    obligations: dict[str, None] = {}
    conditions: dict[str, None] = {}
    texts: list[str] = []

    def refuse(use: str, why: str) -> None:
        if permits[use]:
            permits[use] = False
            reasons[use] = why

    for name, text in _that_bear_on(facts, table, profile):
        texts.append(name)
        found, met, owed = _applied(text, profile, classifier=classifier)
        for use in USES:
            if found[use] != "yes":
                said = "does not permit it" if found[use] == "no" else "is not known to permit it"
                refuse(use, f"{name} {said}: {text.source}")
        obligations |= dict.fromkeys(owed)
        conditions |= dict.fromkeys(met)
    if facts.consent == "no":
        for use in USES:
            refuse(use, "consent was refused or withdrawn")
    if facts.purpose and facts.purpose not in profile.purposes:
        refuse("train", f'it is for the purpose "{facts.purpose}", which is none of rights.purposes')
        refuse("distil", f'it is for the purpose "{facts.purpose}", which is none of rights.purposes')
    if facts.residency and facts.residency != profile.region:
        refuse("share", f'it is to stay in "{facts.residency}"')
        refuse("export", f'it is to stay in "{facts.residency}"')
    for use in USES:
        reasons.setdefault(use, f"permitted by {', '.join(texts)}" if texts else "nothing bears on it")
    return Rights(permits, reasons, tuple(sorted(obligations)), tuple(sorted(conditions)), tuple(texts))


def together(rights: Iterable[Rights]) -> Rights:
    """What may be done with what was made of all these: the AND of permissions, the union of all else."""
    permits: dict[str, bool] = dict.fromkeys(USES, True)
    reasons: dict[str, str] = {}
    obligations: set[str] = set()
    conditions: set[str] = set()
    texts: set[str] = set()
    for each in rights:
        for use in USES:
            if permits[use] and not each.permits[use]:
                permits[use] = False
                reasons[use] = each.reasons[use]
        obligations.update(each.obligations)
        conditions.update(each.conditions)
        texts.update(each.texts)
    for use in USES:
        reasons.setdefault(use, f"permitted by {', '.join(sorted(texts))}" if texts else "nothing bears on it")
    return Rights(permits, reasons, tuple(sorted(obligations)), tuple(sorted(conditions)), tuple(sorted(texts)))


def meets(condition: str, profile: RightsConfig, *, classifier: bool) -> bool:
    """Whether a condition holds. ConfigError for one that nobody knows."""
    match condition.partition("<")[0], condition:
        case "classifier", _:
            return classifier
        case "not_distributed", _:
            return not profile.distributed
        case "users", _:
            return profile.users < float(condition.partition("<")[2])
        case "revenue", _:
            return profile.revenue_usd < float(condition.partition("<")[2])
        case _ if condition.startswith("region!="):
            return profile.region != condition.partition("!=")[2]
        case _:
            raise ConfigError(
                f'the condition "{condition}" is unknown: classifier, not_distributed, users<N, revenue<N, region!=X'
            )


def check_conditions(profile: RightsConfig, where: str) -> None:
    """Raise ConfigError over a condition of one's own texts that nobody knows."""
    for kind, texts in (("terms", profile.terms), ("licences", profile.licences)):
        for name, text in texts.items():
            for unless in text.unless:
                for condition in unless.conditions:
                    try:
                        meets(condition, RightsConfig(), classifier=True)
                    except (ConfigError, ValueError) as error:
                        raise ConfigError(f"{where}.{kind}.{name}: {error}") from None


@functools.cache
def shipped() -> Table:
    """The table that comes with this version."""
    data = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return msgspec.convert(data, Table)


def table_of(own: RightsConfig) -> Table:
    """The table that ships, with the user's own texts before it: those of a provider or name replace them."""
    base = shipped()
    named = {provider for text in own.terms.values() for provider in text.providers}
    called = {name.lower() for text in own.licences.values() for name in (*text.names, *text.sha256)}
    terms = {name: text for name, text in base.terms.items() if not named.intersection(text.providers)}
    licences = {name: text for name, text in base.licences.items() if not called.intersection(text.names)}
    return Table(terms | own.terms, licences | own.licences)


def digest_of(text: str) -> str:
    """What a licence's text is known by."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()


def version_of(table: Table, profile: RightsConfig) -> str:
    """Names table and profile by what they say: where it changes, everything is judged anew."""
    return hashlib.sha256(msgspec.json.encode((table, profile), order="sorted")).hexdigest()[:16]


_UNREAD = Text(source="no text is known: add one under [rights] in the configuration")


def _that_bear_on(facts: Facts, table: Table, profile: RightsConfig) -> list[tuple[str, Text]]:
    """The texts that a row is under: of who answered, and of the row itself."""
    found: list[tuple[str, Text]] = []
    if facts.licence:
        found.append(_licence(facts.licence, table))
    if facts.provider:
        named = [(name, text) for name, text in table.terms.items() if facts.provider in text.providers]
        at = facts.day or date.max
        then = [
            (name, text)
            for name, text in named
            if (text.since is None or text.since <= at) and (text.until is None or at < text.until)
        ]
        if then:
            found.append(then[-1])
        elif named:
            found.append((f"the terms of {facts.provider} on {at}", _UNREAD))
        elif not facts.licence:
            found.append((f"the terms of {facts.provider}", _UNREAD))
    elif not facts.licence:
        own = profile.own
        found.append(("rights.own", Text(own, own, own, "unknown", "what your own callers ask and say")))
    return found


def _licence(said: str, table: Table) -> tuple[str, Text]:
    wanted = said.lower().removeprefix("sha256:")
    for name, text in table.licences.items():
        if wanted == name or wanted in map(str.lower, (*text.names, *text.sha256)):
            return name, text
    return f'the licence "{said[:80]}"', _UNREAD


def _applied(
    text: Text, profile: RightsConfig, *, classifier: bool
) -> tuple[Mapping[str, Value], tuple[str, ...], tuple[str, ...]]:
    """What a text permits under a profile, on which conditions that hangs, and what is owed."""
    found: dict[str, Value] = {use: getattr(text, use) for use in USES}
    met: list[str] = []
    owed = list(text.obligations)
    for unless in text.unless:
        if all(meets(each, profile, classifier=classifier) for each in unless.conditions):
            found |= {use: value for use in USES if (value := getattr(unless, use)) is not None}
            met += unless.conditions
            owed += unless.obligations
    return found, tuple(met), tuple(owed)
