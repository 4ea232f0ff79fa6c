"""Models of the transport's protocols, which SPIN checks in each order of their steps."""
