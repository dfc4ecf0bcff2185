"""What a run sees of itself while it trains: where its seconds go, what its numbers do, what to warn of."""
