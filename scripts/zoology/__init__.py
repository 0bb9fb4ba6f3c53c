"""A zoo of engines with one bug each, over real order flow, and of clean ones: what the framework must find, and must not."""
