"""The work that this checkout's workers do: two small Django apps out of the seed's story."""
