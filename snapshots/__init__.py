"""Images of a journal's prefix: made, kept, found again and proven, without the engine."""
