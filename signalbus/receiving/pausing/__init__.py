"""Obey pauses in a worker: know what is paused, hold its deliveries, and release them afterwards (decision 0047)."""
