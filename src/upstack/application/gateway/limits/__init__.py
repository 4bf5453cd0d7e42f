"""What may still be asked and spent: budgets and rates of keys, teams and tasks, held before each attempt.

    hold = meters.enter(...)          who asks, for which task: the parallel requests are counted
    hold.reserve(now)                 before every attempt: holds the most it may use, or says what is exhausted
    hold.settle(cost, tokens, now)    after it: what it did use takes the place of what was held
    hold.leave(answered)

All counters are in `core.slots`, so that the workers of a gateway share them. A budget is never exceeded by what was
foreseen: of workers that reserve at once at least one sees both, and gives way.
"""
