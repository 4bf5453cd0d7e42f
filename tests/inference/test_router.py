"""The router's decisions."""

from __future__ import annotations

import random

import msgspec
import pytest
from msgspec.structs import replace

from upstack.core.errors import Failure, RequestError, SupplyError
from upstack.core.types import Provider, Request, Route, State, Target, Task
from upstack.inference.router import decide, permits, route_plan, task_plan


def make_route(name: str, *, keys: int = 1, residency: str | None = None) -> Route:
    """A route of a provider with `keys` credentials."""
    headers = tuple((("authorization", f"Bearer {index}"),) for index in range(keys))
    provider = Provider(name.split("/", maxsplit=1)[0], "openai", "http://127.0.0.1:1/v1", headers=headers)
    return Route(name, provider, name.rsplit("/", maxsplit=1)[-1], "v1", None, residency)


def make_state(
    *routes: Route,
    task: Task | None = None,
    resting: dict[str, float] | None = None,
    held: dict[str, float] | None = None,
) -> State:
    """A state of these routes, each reachable by name, and of one task."""
    named = {route.name: route for route in routes}
    bare = State(1, {}, named, {task.name: task} if task else {}, {}, resting or {}, held or {})
    plans = {name: route_plan(route, bare) for name, route in named.items()}
    if task is not None:
        plans[f"task/{task.name}"] = task_plan(task, bare)
    return replace(bare, plans=plans)


def ask(model: str) -> Request:
    """A request for `model`."""
    return Request(model, stream=False, wants_usage=False, fields={"model": msgspec.Raw(b'"x"')}, body=b"{}")


def keys(targets: tuple[Target, ...]) -> list[str]:
    """What the plan will ask, in order."""
    return [target.key for target in targets]


TASK = Task("triage", ("a/small", "b/large"), reference="b/large")


def test_task_keeps_configured_order() -> None:
    """A task's routes are asked in the configured order, and the plan says that nothing is certified."""
    state = make_state(make_route("a/small"), make_route("b/large"), task=TASK)
    plan = decide(ask("task/triage"), state, 0.0, random.Random(1))
    assert keys(plan.targets) == ["a/small", "b/large"]
    assert "nothing certified" in plan.why


def test_resting_target_goes_last_until_its_rest_is_over() -> None:
    """A target that rests is asked last, and first again when its time is over."""
    state = make_state(make_route("a/small"), make_route("b/large"), task=TASK, resting={"a/small": 10.0})
    assert keys(decide(ask("task/triage"), state, 9.9, random.Random(1)).targets) == ["b/large", "a/small"]
    assert keys(decide(ask("task/triage"), state, 10.0, random.Random(1)).targets) == ["a/small", "b/large"]


def test_all_resting_are_still_asked_soonest_first() -> None:
    """Where every target rests the one whose rest ends first is tried, and the plan says so."""
    resting = {"a/small": 20.0, "b/large": 10.0}
    state = make_state(make_route("a/small"), make_route("b/large"), task=TASK, resting=resting)
    plan = decide(ask("task/triage"), state, 0.0, random.Random(1))
    assert keys(plan.targets) == ["b/large", "a/small"]
    assert "rest after failures" in plan.why


def test_nobody_is_asked_before_its_retry_after() -> None:
    """While every provider of a plan wants to be left alone, the answer is a 429 with the least of their waits."""
    until = {"a/small": 20.0, "b/large": 10.0}
    state = make_state(make_route("a/small"), make_route("b/large"), task=TASK, resting=until, held=until)
    for model, wait in (("task/triage", 8.0), ("a/small", 18.0)):
        with pytest.raises(SupplyError, match="a/small") as caught:
            decide(ask(model), state, 2.0, random.Random(1))
        assert caught.value.failure is Failure.RATE_LIMITED
        assert (caught.value.status, caught.value.retry_after) == (429, wait)
    assert keys(decide(ask("task/triage"), state, 10.0, random.Random(1)).targets) == ["b/large", "a/small"]
    assert keys(decide(ask("b/large"), state, 10.0, random.Random(1)).targets) == ["b/large"]


def test_a_rest_that_is_our_guess_goes_before_one_that_was_asked_for() -> None:
    """Where all rest, the last resort is the target nobody forbade, though its rest lasts longer."""
    resting, held = {"a/small": 20.0, "b/large": 10.0}, {"b/large": 10.0}
    state = make_state(make_route("a/small"), make_route("b/large"), task=TASK, resting=resting, held=held)
    plan = decide(ask("task/triage"), state, 0.0, random.Random(1))
    assert keys(plan.targets) == ["a/small", "b/large"]
    assert "all of them rest" in plan.why
    assert keys(decide(ask("a/small"), state, 0.0, random.Random(1)).targets) == ["a/small"]


def test_load_spreads_over_credentials() -> None:
    """Two credentials of one provider share the load about evenly."""
    state = make_state(make_route("a/small", keys=2))
    rng = random.Random(7)
    first = [decide(ask("a/small"), state, 0.0, rng).targets[0].credential for _ in range(2000)]
    assert 900 < sum(first) < 1100


def test_decision_is_deterministic_given_its_inputs() -> None:
    """The same request, state, time and generator give the same plan."""
    state = make_state(make_route("a/small", keys=5))
    once, again = (decide(ask("a/small"), state, 1.0, random.Random(3)) for _ in range(2))
    assert once == again


def test_unknown_model_lists_near_names() -> None:
    """A misspelt model is a 404 that names what was probably meant."""
    state = make_state(make_route("openai/gpt-4o"), make_route("cheap"))
    with pytest.raises(RequestError, match="openai/gpt-4o") as caught:
        decide(ask("openai/gpt-4"), state, 0.0, random.Random(1))
    assert caught.value.status == 404
    assert caught.value.code == "model_not_found"


def test_names_that_callers_made_up_are_not_suggested() -> None:
    """Nor is a name compared that is too long to be one; both would cost much, and tell one caller of another."""
    state = replace(make_state(make_route("openai/gpt-4o"), make_route("openai/zzz")), learned=("openai/zzz",))
    for name in ("openai/zzy", "openai/" + "z" * 100_000):
        with pytest.raises(RequestError) as caught:
            decide(ask(name), state, 0.0, random.Random(1))
        assert "openai/zzz'" not in caught.value.message


def test_residency_leaves_routes_out() -> None:
    """A task with a residency is never planned on a route without that label."""
    onsite, cloud = make_route("a/small", residency="onsite"), make_route("b/large")
    task = Task("triage", ("b/large", "a/small"), residency=("onsite",))
    assert permits(task, onsite)
    assert not permits(task, cloud)
    state = make_state(onsite, cloud, task=task)
    assert keys(decide(ask("task/triage"), state, 0.0, random.Random(1)).targets) == ["a/small"]
