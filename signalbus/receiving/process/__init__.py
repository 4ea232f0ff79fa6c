"""What a worker process keeps between messages: connections, sessions, leases, an event loop, runtime estimates."""
