"""How an audit looks: at every leaf of a state, and at what lies outside of it."""
