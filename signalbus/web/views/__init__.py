"""The views of the web app: each answers one question of a person, and asks `signalbus.services` for it."""
