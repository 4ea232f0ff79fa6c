"""The sweeper: publish what is due, and ask the queues what they can prove for an audit."""
