"""What happened: an ordered, chained, idempotent, durable record of an engine's commands.

Import the public names from ``recovery``; this package is the house behind them.
"""
