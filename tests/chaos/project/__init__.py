"""A Django app of signals and receivers that leave traces: what the chaos suite runs."""
