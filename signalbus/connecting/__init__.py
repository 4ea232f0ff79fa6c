"""Connect receivers to signals: their ids, options and senders, and the subscriptions of each signal.

`sending/declared_signal` and `bridging/` call it. The registry of all signals is in `registration/`.
"""
