"""A run for people: progress while it trains, then a table and a plot."""
