"""`upstack.toml`: one frozen struct per table. What is read here is checked here, and nowhere else.

Order: default < file < environment (`UPSTACK_SERVER_PORT=...`) < flag. Unknown keys are errors that name the key, what
is allowed and what was probably meant; so are unknown variables that begin with `UPSTACK_SERVER_`. Secrets are
references (`env:NAME`, `file:/path`), resolved late, never values.
"""

from upstack.core.config.loading import ledger_place, load_config, load_price_file, resolve_secret
from upstack.core.config.tables import (
    NAME,
    RANGES,
    UNCERTIFIED,
    BudgetConfig,
    Config,
    KeyConfig,
    PriceConfig,
    ProviderConfig,
    RateConfig,
    RouteConfig,
    ServerConfig,
    TaskConfig,
    TeamConfig,
    TimeoutsConfig,
)

__all__ = [
    "NAME",
    "RANGES",
    "UNCERTIFIED",
    "BudgetConfig",
    "Config",
    "KeyConfig",
    "PriceConfig",
    "ProviderConfig",
    "RateConfig",
    "RouteConfig",
    "ServerConfig",
    "TaskConfig",
    "TeamConfig",
    "TimeoutsConfig",
    "ledger_place",
    "load_config",
    "load_price_file",
    "resolve_secret",
]
