"""The state that a worker process keeps between messages: connections, sessions, leases, event loop, runtime estimates."""
