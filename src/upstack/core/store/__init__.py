"""The ledger: the only place that knows SQL. The gateway talks to `client`, the command line to `reading`."""
