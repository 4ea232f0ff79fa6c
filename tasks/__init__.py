"""The example of this checkout: two small Django apps."""
