"""Bridges from plain Django signals to receivers in workers, and the ``receiver`` decorator that builds them."""
