"""``recovery demo``: an engine is killed, comes back by itself, and proves that it is the same."""
