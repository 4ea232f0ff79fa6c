"""Connect receivers to signals: their ids, options and senders, and the subscriptions of each signal."""
