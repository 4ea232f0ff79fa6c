"""``make demo``: the seed's story, told by real processes. Not installed by the project's own settings."""
