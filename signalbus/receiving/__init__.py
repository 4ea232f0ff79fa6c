"""Receiving messages in a worker: its main process, routing, running, invoking and settling, and the sweeper."""
