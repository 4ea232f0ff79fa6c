"""Metrics and traces for the tools that people have. Nothing in it is imported unless it is used or switched on."""
