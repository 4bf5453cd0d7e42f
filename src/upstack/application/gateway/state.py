"""From configuration to the immutable state that decisions read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from upstack.core.config import UNCERTIFIED, Config, TaskConfig
from upstack.core.errors import ConfigError, EvidenceError
from upstack.core.types import (
    STUDENT,
    Plan,
    Price,
    Proved,
    Provider,
    Rates,
    Route,
    State,
    Task,
    Terms,
    student_of,
    student_route,
)
from upstack.foundation.catalog import providers_from, why_missing
from upstack.foundation.prices import price_changes_at, price_for
from upstack.foundation.rights import check_conditions
from upstack.inference.cost import ceiling
from upstack.inference.distill.lessons import fields_of
from upstack.inference.drift import revoke_loss
from upstack.inference.graders.making import make_grader
from upstack.inference.router import permits, route_plan, task_plan

LEARNED_ROUTES = 512  # "provider/model" names remembered beside the configured ones
_MODEL = re.compile(r"[\x21-\x7e]{1,200}")


class _Builder(msgspec.Struct, frozen=True):
    """What routes are made from."""

    config: Config
    environ: Mapping[str, str]
    providers: Mapping[str, Provider]
    now: datetime  # prices may depend on it

    def configured(self, name: str) -> Route:
        """The route of a `[routes.NAME]` table."""
        row = self.config.routes[name]
        route = self.named(row.model, f"routes.{name}.model", name)
        return replace(route, residency=row.residency or route.residency, max_output_tokens=row.max_output_tokens)

    def named(self, model: str, where: str, name: str | None = None) -> Route:
        """The route of a "provider/model" name; ConfigError says `where` it stood."""
        provider, slash, upstream = model.partition("/")
        if not slash or not _MODEL.fullmatch(model):
            raise ConfigError(f'{where}: "{model}" is neither a route nor "provider/model"')
        if provider not in self.providers:
            raise ConfigError(f"{where}: {why_missing(provider, self.environ)}")
        return self.route(name or model, self.providers[provider], upstream)

    def route(self, name: str, provider: Provider, model: str) -> Route:
        """A route with its price and behaviour version."""
        table = self.config.providers.get(provider.name)
        return Route(
            name=name,
            provider=provider,
            model=model,
            version=_version(provider, model),
            price=self.price(name, provider, model),
            residency=table.residency if table is not None else None,
        )

    def price(self, name: str, provider: Provider, model: str) -> Price | None:
        """What the route of that name costs now."""
        return price_for(provider, model, self.config.prices, (name, f"{provider.name}/{model}"), self.now)


def build_state(
    config: Config,
    environ: Mapping[str, str],
    generation: int,
    *,
    replayed: Mapping[str, Provider] | None = None,
    models: Sequence[str] = (),
) -> State:
    """Lay out providers, routes, tasks and the plan of each.

    `replayed`: providers of a recorded file, which stand before the configured ones of the same name; `models`: further
    "provider/model" names to list. Raises ConfigError naming the key.
    """
    check_conditions(config.rights, "rights")
    providers = providers_from(config, environ) | dict(replayed or {})
    build = _Builder(config, environ, providers, datetime.now(UTC))
    routes = {name: build.configured(name) for name in config.routes}
    for name, task in config.tasks.items():
        for used, where in _order(name, task):
            if used not in routes:
                routes[used] = build.named(used, f"tasks.{name}.{where}")
        if task.judge is not None and task.judge not in routes:
            routes[task.judge] = build.named(task.judge, f"tasks.{name}.judge")
    for model in models:
        if model not in routes:
            routes[model] = build.named(model, "the recorded traffic")
    tasks = {name: _task(name, config, routes) for name in config.tasks}
    server = config.server
    bare = State(
        generation=generation,
        providers=providers,
        routes=routes,
        tasks=tasks,
        plans={},
        capture=server.capture,
        retries=server.retries,
        encrypt=server.encrypt,
        reserve=(server.default_reserve_tokens, server.default_reserve_seconds),
    )
    plans = {name: route_plan(route, bare) for name, route in routes.items()}
    plans |= {f"task/{task.name}": task_plan(task, bare) for task in tasks.values()}
    return replace(bare, plans=plans)


def learn_route(state: State, name: str, config: Config) -> State:
    """Add the route of a "provider/model" name asked for the first time; the oldest learned ones make room.

    Returns `state` itself where the name is no such route.
    """
    provider, _, model = name.partition("/")
    if provider not in state.providers or not model or not _MODEL.fullmatch(name):
        return state
    learned = (*state.learned, name)
    dropped = set(learned[:-LEARNED_ROUTES])
    build = _Builder(config, {}, state.providers, datetime.now(UTC))
    route = build.route(name, state.providers[provider], model)
    plan = route_plan(route, state)
    return replace(
        state,
        routes={key: value for key, value in state.routes.items() if key not in dropped} | {name: route},
        plans={key: value for key, value in state.plans.items() if key not in dropped} | {name: plan},
        learned=learned[-LEARNED_ROUTES:],
    )


def reprice(state: State, config: Config, now: datetime) -> State:
    """Give every route its price at `now`: some providers' lists change with the hour or the date."""
    build = _Builder(config, {}, state.providers, now)
    routes = {
        name: route
        if route.provider.backend == STUDENT
        else replace(route, price=build.price(name, route.provider, route.model))
        for name, route in state.routes.items()
    }
    plans = {name: _repriced(plan, routes, state) for name, plan in state.plans.items()}
    return replace(state, routes=routes, plans=plans)


def _repriced(plan: Plan, routes: Mapping[str, Route], state: State) -> Plan:
    targets = tuple(replace(target, route=routes[target.route.name]) for target in plan.targets)
    return replace(plan, targets=targets, ceiling=ceiling([target.route for target in targets], state.reserve))


def reprice_at(state: State, now: datetime) -> datetime | None:
    """When the price of some route may next differ; None where all are fixed."""
    changes = (price_changes_at(route.provider, route.model, now) for route in state.routes.values())
    return min((moment for moment in changes if moment is not None), default=None)


def with_proved(
    state: State, proved: Mapping[str, Proved], students: Mapping[str, tuple[str, ...]], usd_per_hour: float
) -> State:
    """Take what is certified now, and the students there are: the plans that it concerns are laid out anew."""
    if students or state.students:
        state = _with_students(state, students, usd_per_hour)
    state = replace(state, proved=proved)
    plans = {f"task/{task.name}": task_plan(task, state) for task in state.tasks.values() if task.terms is not None}
    return replace(state, plans={**state.plans, **plans})


def _with_students(state: State, students: Mapping[str, tuple[str, ...]], usd_per_hour: float) -> State:
    """Give the tasks that learn their students, as routes that are asked where a plan says so."""
    price = Price(f"loop.usd_per_hour {usd_per_hour:g}", ((0, Rates(0, 0)),), per_hour=round(usd_per_hour * 1e12))
    provider = Provider(name=STUDENT, backend=STUDENT, base_url="student:")
    routes = {name: route for name, route in state.routes.items() if student_of(name) is None}
    tasks = dict(state.tasks)
    for name, task in state.tasks.items():
        living = students.get(name, ()) if task.learns else ()
        for student in living:
            route = student_route(name, student)
            here = task.residency[0] if task.residency else None  # it leaves this process for nowhere
            routes[route] = Route(route, provider, f"{name}:{student}", student, price, here)
        if task.terms is not None:
            arms = [arm for arm in task.terms.arms if student_of(arm[0]) is None]
            arms += [(student_route(name, student), student) for student in living]
            tasks[name] = replace(task, terms=replace(task.terms, arms=tuple(arms)))
    return replace(state, routes=routes, tasks=tasks, students=students)


def target_keys(plans: Mapping[str, Plan]) -> set[str]:
    """Every target's key."""
    return {target.key for plan in plans.values() for target in plan.targets}


def _version(provider: Provider, model: str) -> str:
    """The behaviour version: what, asked where, how. Neither the price nor the key is part of it."""
    parts = [provider.name, provider.backend, provider.base_url, provider.chat_path, provider.query, model]
    mark = "replay:" if provider.backend == "replay" else ""  # a recording's answers are told from a provider's
    return mark + hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _terms(name: str, row: TaskConfig, routes: Sequence[Route], judge: Route | None) -> Terms:
    """What is to be proved of the task's routes; those that its residency forbids take no part."""
    allowed = [route for route in routes if not row.residency or route.residency in row.residency]
    versions = {route.name: route.version for route in allowed}
    assert row.reference is not None and row.grader is not None  # noqa: S101, PT018 - the configuration was checked
    if find_spec("sklearn") is None or find_spec("rensa") is None:
        raise ConfigError(f"tasks.{name}.strategy: plans are proved with the extra: pip install 'upstack[learn]'")
    make_grader(row.grader, row.fields)  # whatever is wrong with it is said now
    if row.reference not in versions:
        raise ConfigError(f'tasks.{name}.residency: the reference "{row.reference}" has none of its labels')
    if row.residency and judge is not None and judge.residency not in row.residency:
        raise ConfigError(f'tasks.{name}.residency: the judge "{judge.name}" has none of its labels')
    return Terms(
        reference=(row.reference, versions.pop(row.reference)),
        arms=tuple(versions.items()),
        strategy=row.strategy,
        grader=row.grader,
        fields=row.fields,
        max_loss=row.max_loss,
        confidence=row.confidence,
        min_checks=row.min_checks,
        min_hours=row.min_hours,
        revoke_loss=revoke_loss(row.max_loss) if row.revoke_loss is None else row.revoke_loss,
        false_alarm_checks=row.false_alarm_checks,
        expires_days=row.expires_days,
        maturity_days=row.maturity_days,
        judge=row.judge,
        label_rate=row.label_rate,
        labelled=row.labels,
        aim=row.aim_loss if row.aim_loss is not None else 0.0 if _learns(name, row) else 1.0,
    )


def _learns(name: str, row: TaskConfig) -> bool:
    return f"{STUDENT}/{name}" in row.candidates and row.strategy not in UNCERTIFIED


def _schema(path: str, where: str, *, learns: bool) -> bytes:
    """The JSON schema in a file, which a student can fill where the task learns."""
    try:
        data = Path(path).read_bytes()
        schema = msgspec.json.decode(data, type=dict[str, Any])
        if learns:
            fields_of(schema)
    except EvidenceError as error:
        raise ConfigError(f"{where}: {error.message}") from None
    except OSError as error:
        raise ConfigError(f"{where}: {path} cannot be read: {error.strerror or error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{where}: {path} is no JSON schema: {error}") from None
    return data


def _order(task: str, row: TaskConfig) -> list[tuple[str, str]]:
    """A task's routes in fallback order, each with the key that names it; its students come and go by themselves."""
    own = f"{STUDENT}/{task}"
    order = [(name, f"candidates[{index}]") for index, name in enumerate(row.candidates) if name != own]
    if row.reference is not None and row.reference not in row.candidates:
        order.append((row.reference, "reference"))
    return order


def _task(name: str, config: Config, routes: Mapping[str, Route]) -> Task:
    row = config.tasks[name]
    order = tuple(used for used, _ in _order(name, row))
    task = Task(
        name=name,
        routes=order,
        reference=row.reference,
        strategy=row.strategy,
        terms=None
        if row.strategy in UNCERTIFIED
        else _terms(name, row, [routes[used] for used in order], routes.get(row.judge or "")),
        shadow_rate=row.shadow_rate,
        capture=row.capture or config.server.capture,
        residency=row.residency,
        encrypt=config.server.encrypt if row.encrypt is None else row.encrypt,
        value=None if row.value_usd is None else round(row.value_usd * 10**12),
        refuse_unprofitable=row.on_unprofitable == "refuse",
        learns=_learns(name, row),
        schema=None if row.schema is None else _schema(row.schema, f"tasks.{name}.schema", learns=_learns(name, row)),
    )
    if not any(permits(task, routes[used]) for used in task.routes):
        labels = ", ".join(task.residency)
        raise ConfigError(f"tasks.{name}.residency: none of its routes has the label {labels}")
    return task
