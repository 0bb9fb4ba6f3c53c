"""From a divergence to the smallest history that shows it, and a test of it."""
