"""From a text on a queue to the receivers of its message: verify, read, look the receivers up, or requeue."""
