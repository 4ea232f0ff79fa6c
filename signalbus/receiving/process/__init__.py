"""What one process of a worker keeps between messages: connections, sessions, log lines, and notes of outages."""
