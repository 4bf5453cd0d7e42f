"""What certified routing saves on recorded answers, beside simple ways to do it. `make bench-arbitrage`."""
