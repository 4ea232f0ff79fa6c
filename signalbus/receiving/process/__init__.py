"""What one process of a worker keeps between messages: connections, sessions, leases, an event loop, log lines."""
