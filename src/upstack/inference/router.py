"""The decision: which routes, in which order, for one request. Pure: no I/O, no clock, no randomness of its own."""

from __future__ import annotations

import difflib
import random
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import cast

from msgspec.structs import replace

from upstack.core.errors import Failure, RequestError, SupplyError
from upstack.core.types import Plan, Proved, Request, Route, State, Strategy, Target, Task, student_of
from upstack.inference.cost import ceiling
from upstack.inference.strategies.policy import Policy, from_bytes

NOTHING_PROVED = Proved()
LONGEST_COMPARED = 100  # characters of an unknown name; comparing takes the square of them


def decide(request: Request, state: State, now: float, rng: random.Random) -> Plan:
    """Choose the plan for `request`; `now` is monotonic seconds.

    A route's targets (one per credential) are shuffled, so that load spreads over them. Targets that rest come last,
    soonest first: they are asked only when everything else failed. Raises RequestError (404) for an unknown model, and
    SupplyError (429) while every target's provider wants to be left alone.
    """
    plan = state.plans.get(request.model)
    if plan is None:
        raise unknown_model(request.model, state)
    if state.held:
        _mind_retry_after(plan, state.held, now)
    if len(plan.targets) == 1:
        return plan
    targets = _spread(plan.targets, rng)
    if state.resting:
        targets = _rested_last(targets, state, now)
        if state.resting.get(targets[0].key, 0.0) > now:
            return replace(plan, targets=targets, why=f"{plan.why}; all of them rest after failures")
        if targets[0].route.name != plan.targets[0].route.name:
            return replace(plan, targets=targets, why=f"{plan.why}; {plan.targets[0].route.name} rests after failures")
    return replace(plan, targets=targets) if targets is not plan.targets else plan


def route_plan(route: Route, state: State) -> Plan:
    """Lay out the plan of a route asked for by name; of `state` its settings count."""
    return Plan(
        model=route.name,
        task=None,
        strategy="single",
        targets=targets_of(route),
        retries=state.retries,
        capture=state.capture,
        why=f"the caller asked for {route.name}",
        encrypt=state.encrypt,
        ceiling=ceiling([route], state.reserve),
    )


def task_plan(task: Task, state: State) -> Plan:
    """Lay out the plan of a task: its routes in the configured order, those its residency forbids left out."""
    allowed = [state.routes[name] for name in task.routes if permits(task, state.routes[name])]
    strategy: Strategy = "fallback"
    rate = 0.0
    policy: Policy | None = None
    if task.strategy == "first":
        strategy, allowed = "first", allowed[:1]
    order = ", then ".join(route.name for route in allowed)
    why = f"{order}, in the configured order, nothing certified"
    if task.terms is not None:
        proved = state.proved.get(task.name, NOTHING_PROVED)
        first = [name for name, version in proved.arms if _is_there(name, version, state)]
        if proved.certificate is None or len(first) < len(proved.arms):
            strategy, first = "reference", []
            why = f"the reference {task.terms.reference[0]}, as nothing is certified"
        else:
            strategy, why = cast("Strategy", proved.strategy), proved.words
            (policy,) = from_bytes(proved.plan)
            if policy.trusts_all:
                policy = None
            else:  # it asks them by itself; where one fails the reference is next
                first = []
        ranks = {name: rank for rank, name in enumerate([*first, task.terms.reference[0]])}
        allowed.sort(key=lambda route: ranks.get(route.name, len(ranks)))
        rate = 1.0 if proved.alarmed or proved.eager or _is_free(task, proved) else task.shadow_rate
        allowed += [state.routes[name] for name in first if name not in task.routes]  # a student
    return Plan(
        model=f"task/{task.name}",
        task=task.name,
        strategy=strategy,
        targets=tuple(target for route in allowed for target in targets_of(route)),
        retries=state.retries,
        capture=task.capture,
        why=f"task {task.name}: {why}",
        encrypt=task.encrypt,
        ceiling=ceiling(allowed, state.reserve),
        arms=() if policy is None else _arms(policy, state),
        policy=policy,
        shadow_rate=rate,
    )


def _is_free(task: Task, proved: Proved) -> bool:
    """Whether a check costs nothing: the reference answers, and beside it there are students alone to be asked."""
    arms = () if task.terms is None else task.terms.arms
    return task.learns and proved.certificate is None and all(student_of(name) is not None for name, _ in arms)


def _is_there(name: str, version: str, state: State) -> bool:
    route = state.routes.get(name)
    return route is not None and route.version == version


def _arms(policy: Policy, state: State) -> tuple[Target, ...]:
    return tuple(target for name in policy.strategy.arms for target in targets_of(state.routes[name]))


def shadow_plan(plan: Plan, route: Route, state: State, check: str) -> Plan:
    """Lay out how a route is asked beside the answer to a check, which is the receipt's id."""
    return replace(
        route_plan(route, state),
        model=plan.model,
        task=shadow_task(plan.task or ""),
        strategy="shadow",
        capture="full",
        encrypt=plan.encrypt,
        check_of=check,
        why=f"asked beside {check}, which is a check",
    )


def shadow_task(task: str) -> str:
    """Under which name the spend of a task's checks is booked. No task has a slash in its own."""
    return f"{task}/shadow"


def permits(task: Task, route: Route) -> bool:
    """Say whether the task's residency allows the route."""
    return not task.residency or route.residency in task.residency


def targets_of(route: Route) -> tuple[Target, ...]:
    """One target per credential of the route's provider."""
    several = len(route.provider.headers) > 1
    return tuple(
        Target(route=route, credential=index, key=f"{route.name}#{index}" if several else route.name)
        for index in range(len(route.provider.headers))
    )


def configured(state: State) -> set[str]:
    """Names that may be asked for because they are configured; callers can make up any number of others."""
    return set(state.plans).difference(state.learned)


def unknown_model(name: str, state: State) -> RequestError:
    """Build the error for a model nobody serves, listing near names."""
    known = sorted(configured(state))
    near = difflib.get_close_matches(name, known, 3, 0.5) if len(name) <= LONGEST_COMPARED else []
    if near:
        hint = "did you mean " + " or ".join(f"'{found}'" for found in near) + "?"
    elif known:
        hint = "known: " + ", ".join(f"'{found}'" for found in known[:5]) + (", ..." if len(known) > 5 else ".")
    else:
        hint = "nothing is configured: `upstack doctor` says what was found"
    providers = ", ".join(sorted(state.providers)[:8])
    prefix = f" 'PROVIDER/MODEL' works for: {providers}." if providers and "/" not in name else ""
    shown = name if len(name) <= 100 else name[:100] + "..."
    return RequestError(
        f"The model '{shown}' does not exist here; {hint}{prefix}", status=404, code="model_not_found", param="model"
    )


def _spread(targets: tuple[Target, ...], rng: random.Random) -> tuple[Target, ...]:
    if not any(target.credential for target in targets):
        return targets
    spread: list[Target] = []
    for _, group in groupby(targets, key=lambda target: target.route.name):
        credentials = list(group)
        rng.shuffle(credentials)
        spread += credentials
    return tuple(spread)


def _rested_last(targets: Iterable[Target], state: State, now: float) -> tuple[Target, ...]:
    """Order by the end of the rest, those whose provider asked for it behind the others."""

    def rank(target: Target) -> tuple[bool, float]:
        return state.held.get(target.key, 0.0) > now, max(state.resting.get(target.key, 0.0), now)

    return tuple(sorted(targets, key=rank))


def _mind_retry_after(plan: Plan, held: Mapping[str, float], now: float) -> None:
    soonest = min(held.get(target.key, 0.0) for target in plan.targets)
    if soonest > now:
        names = ", ".join(dict.fromkeys(target.route.name for target in plan.targets))
        message = f"No route can answer '{plan.model}' now: asked to come back later by {names}"
        raise SupplyError(Failure.RATE_LIMITED, message, status=429, retry_after=soonest - now)
