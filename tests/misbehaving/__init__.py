"""A Django app of receivers that misbehave in the way of their names, and of some that do not."""
