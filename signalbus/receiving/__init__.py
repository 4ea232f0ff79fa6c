"""Receiving messages in a worker: the main process, routing, running, and the sweeper."""
