"""The state of a worker process between messages: connections, sessions, leases, an event loop, runtime estimates.

The other packages of `receiving` use it; it knows no attempts and no messages.
"""
