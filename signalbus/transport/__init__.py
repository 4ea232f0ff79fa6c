"""How our workers take messages from Redis: claimed in one step, acknowledged in bulk, given back by whoever is left.

A transport for kombu on top of kombu's own: the same keys in the same format, so workers with either share a queue.
"""
