"""For who writes a store: the suite it must pass, and the reference it is held to."""
