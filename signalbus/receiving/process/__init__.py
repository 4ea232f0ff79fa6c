"""The state of a worker process between messages: connections, sessions, leases, an event loop, runtime estimates."""
