"""The Django app of the chaos suite: signals, and receivers that leave effects."""
