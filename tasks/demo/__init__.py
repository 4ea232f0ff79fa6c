"""``make demo``: the example, with real processes. The project's own settings do not install it."""
