"""A Django app of receivers that misbehave, each in the way its name says; and of some that do not."""
