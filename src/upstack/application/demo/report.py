"""What came of a demo, as the client, the receipts and the traffic itself say it, held against each other."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from upstack.application.demo.certified import Certified
from upstack.application.demo.loss import Excess, excess, loss_of
from upstack.application.demo.scenario import Scenario
from upstack.application.demo.sending import Sent
from upstack.core.traffic import RecordedAnswer, TrafficRow, prompt_key
from upstack.core.types import Picodollars, Price, Receipt

CLAIM = "configured order, nothing certified"


class Report(msgspec.Struct, frozen=True):
    """Costs are exact integers of picodollars, None where a price is unknown; times in seconds."""

    answered: int
    failed: int
    streamed: int
    by_route: dict[str, int]  # answered requests
    served: Picodollars | None  # what was paid, by the receipts
    always_reference: Picodollars | None  # what the reference's answers to the same rows cost
    excess: Excess | None
    receipts: int  # in the ledger, of answered requests
    p50_s: float
    p99_s: float
    first_error: str
    faults: list[str]  # what does not agree; empty: all is well
    checked: int  # answered requests whose cost was held against the traffic
    certified: Certified | None = None  # what could be proved of the same traffic

    @property
    def saved(self) -> Picodollars | None:
        """What was not spent; negative where it cost more."""
        if self.served is None or self.always_reference is None:
            return None
        return self.always_reference - self.served


def settle(scenario: Scenario, sent: Sequence[Sent], receipts: Mapping[str, Receipt]) -> Report:
    """Draw up the report; `receipts` are those of the requests sent, by id, as the ledger holds them."""
    reference = scenario.roles.reference
    answered = [each for each in sent if not each.error]
    written = {each.index: receipts[each.receipt] for each in answered if each.receipt in receipts}
    routes = {index: receipt.route or "" for index, receipt in written.items() if receipt.state == "answered"}
    rows = scenario.rows
    by_route: dict[str, int] = defaultdict(int)
    for route in routes.values():
        by_route[route] += 1
    faults, checked = _faults(scenario, answered, written, routes)
    differences = [
        loss - against
        for index, route in routes.items()
        if (loss := loss_of(rows[index], route)) is not None
        and (against := loss_of(rows[index], reference)) is not None
    ]
    price = scenario.prices[reference]
    return Report(
        answered=len(answered),
        failed=len(sent) - len(answered),
        streamed=sum(each.streamed for each in answered),
        by_route=dict(by_route),
        served=_total(receipt.cost_picodollars for receipt in receipts.values()),
        always_reference=_total(_price_of(rows[each.index].answers[reference], price) for each in answered),
        excess=excess(differences),
        receipts=len(routes),
        p50_s=percentile([each.seconds for each in answered], 0.5),
        p99_s=percentile([each.seconds for each in answered], 0.99),
        first_error=next((each.error for each in sent if each.error), ""),
        faults=faults,
        checked=checked,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def _faults(
    scenario: Scenario, answered: Sequence[Sent], written: Mapping[int, Receipt], routes: Mapping[int, str]
) -> tuple[list[str], int]:
    """Hold receipts and answers against the traffic; what is wrong, and how many costs were compared."""
    faults = []
    if len(routes) != len(answered):
        faults.append(f"{len(answered)} requests were answered, but the ledger has {len(routes)} receipts of answers")
    alike = _rows_alike(scenario.rows)
    altered = sum(
        each.index in routes
        and each.content
        not in {scenario.rows[row].answers[routes[each.index]].content or "" for row in alike[each.index]}
        for each in answered
    )
    if altered:
        faults.append(f"{altered} answers came out other than the models gave them")
    # Answers to a repeated prompt take turns: only all rows of that prompt together can be compared.
    settled = [index for index in routes if len({routes.get(row) for row in alike[index]}) == 1]
    by_receipts = _total(written[index].cost_picodollars for index in settled)
    by_traffic = _total(
        _price_of(scenario.rows[index].answers[routes[index]], scenario.prices[routes[index]]) for index in settled
    )
    if by_receipts != by_traffic:
        faults.append(
            f"the receipts come to {_said(by_receipts)}, the traffic's own tokens and prices to {_said(by_traffic)}"
        )
    return faults, len(settled) if by_traffic is not None else 0


def _rows_alike(rows: Sequence[TrafficRow]) -> dict[int, list[int]]:
    """For each row the rows with the same prompt, itself included."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[prompt_key(row.messages)].append(index)
    return {index: group for group in groups.values() for index in group}


def _price_of(answer: RecordedAnswer, price: Price | None) -> Picodollars | None:
    """Price a recorded answer by itself, so that it can disagree with what the gateway made of the same answer."""
    if price is None:
        return None
    rates = [rates for above, rates in price.tiers if answer.input_tokens > above] or [price.tiers[0][1]]
    return answer.input_tokens * rates[-1].input + answer.output_tokens * rates[-1].output + rates[-1].request


def _said(cost: Picodollars | None) -> str:
    return "an unknown sum" if cost is None else f"{cost} picodollars"


def _total(costs: Iterable[Picodollars | None]) -> Picodollars | None:
    """The sum, or None where one is unknown."""
    total = 0
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total
