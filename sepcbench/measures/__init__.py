"""The three measures: cost, latency and accuracy. Each takes modules and gives records."""
