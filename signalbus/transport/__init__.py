"""Claim messages from Redis in one step, acknowledge them in bulk, and reclaim those of dead workers (decision 0031).

A transport for kombu on top of kombu's own: the same keys in the same format, so workers with either share a queue.
`receiving/worker/capacity` turns it on. It knows nothing of signals, receivers or the ledger.
"""
