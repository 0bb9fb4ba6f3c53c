"""How the determinism guard looks: at calls, at the order of sets, in the engine's own code."""
